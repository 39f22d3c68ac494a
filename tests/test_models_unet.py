"""The conditional U-Net against figures, and on any size.

The figures of `golden/unet.npz` come from a float64 evaluation that gives the published network's outputs to 1e-8.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sel.interop import network_from_torch
from sel.models import ConditionalUNet

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden" / "unet.npz"


def golden_weights():
    with np.load(GOLDEN) as file:
        return {k.removeprefix("weights/"): v for k, v in file.items() if k.startswith("weights/")}


@pytest.mark.parametrize("case", [0, 1], ids=["8x8", "7x10, padded"])
def test_agrees_with_figures(case):
    with np.load(GOLDEN) as file:
        names = ("state", "condition", "t", "output")
        x_t, mu, t, expected = (jnp.asarray(file[f"unet{case}/{name}"]) for name in names)
    network, params = network_from_torch(golden_weights())
    assert (network.width, network.depth) == (4, 2)
    got = jax.jit(network.apply)({"params": params}, x_t, mu, t)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    if case == 0:
        half = jax.jit(network.clone(dtype=jnp.bfloat16).apply)({"params": params}, x_t, mu, t)
        assert half.dtype == jnp.float32
        assert 1e-4 < np.abs(half - expected).max() < 0.1 * expected.std()


@pytest.mark.parametrize(("h", "w", "c"), [(1, 1, 1), (3, 5, 4), (8, 8, 3)])
@pytest.mark.parametrize("depth", [0, 3])
def test_any_size_channels_and_depth(h, w, c, depth):
    image, t = jnp.zeros((2, h, w, c)), jnp.array([1, 9])
    network = ConditionalUNet(width=4, depth=depth)
    noise, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), image, image, t)
    assert noise.shape == image.shape
    assert noise.dtype == jnp.float32


def test_gradients_are_finite_and_reach_the_first_layer():
    network, params = network_from_torch(golden_weights())
    image, t = jnp.full((1, 3, 5, 3), 0.5), jnp.array([9])

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.mean((network.apply({"params": params}, image, image, t) - 1) ** 2)

    leaves = gradient(jax.tree.map(jnp.asarray, params))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(leaves))
    # The state equals the condition: of the six input channels, three are zero.
    assert np.all(leaves["intro"]["kernel"][3, 3, 3:] != 0)


def test_a_bad_width_is_named():
    image = jnp.zeros((1, 4, 4, 3))
    with pytest.raises(ValueError, match="width must be an even number, found 5"):
        jax.eval_shape(ConditionalUNet(width=5, depth=1).init, jax.random.key(0), image, image, jnp.array([1]))
