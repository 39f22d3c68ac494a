"""Networks with symbolic sides, which `jax.export` writes, at the widths that people have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from sel.models import ConditionalNAFNet, ConditionalUNet

pytestmark = pytest.mark.usefixtures("compile_little")


@pytest.mark.parametrize(
    "module",
    [
        ConditionalNAFNet(width=16, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1)),
        ConditionalNAFNet(width=32, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,)),
        ConditionalUNet(width=16, depth=1),
    ],
    ids=["nafnet16", "nafnet32", "unet16"],
)
def test_one_program_takes_every_size(module):
    key, t = jax.random.key(0), jnp.array([3, 5])
    x_t, mu = jax.random.uniform(key, (2, 2, 32, 64, 3))
    params = jax.jit(module.init)(key, x_t, mu, t)
    params = jax.tree.map(lambda leaf: leaf + 0.05 * jax.random.normal(key, leaf.shape), params)
    symbolic = export.symbolic_shape("b, 32*h, 32*w")
    image = jax.ShapeDtypeStruct((*symbolic, 3), jnp.float32)
    arguments = (image, image, jax.ShapeDtypeStruct(symbolic[:1], jnp.int32))
    exported = export.export(jax.jit(lambda *images: module.apply(params, *images)))(*arguments)
    # The same sums in another order.
    expected = jax.jit(module.apply)(params, x_t, mu, t)
    np.testing.assert_allclose(exported.call(x_t, mu, t), expected, rtol=1e-3, atol=1e-3)
