"""The conditional NAFNet: published figures, size, and what holds for any weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sel.interop import network_from_torch
from sel.models import ConditionalNAFNet

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden" / "nafnet.npz"
TINY = ConditionalNAFNet(width=4, encoder_blocks=(2,), middle_blocks=0, decoder_blocks=(1,))


def inputs(h, w, c=3, batch=2):
    rng = np.random.default_rng(h * w)
    x_t, mu = rng.uniform(size=(2, batch, h, w, c)).astype(np.float32)
    return jnp.asarray(x_t), jnp.asarray(mu), jnp.arange(1, batch + 1) * 7


@pytest.mark.parametrize("case", [0, 1], ids=["32x32", "29x43, padded"])
def test_agrees_with_the_published_network(case):
    with np.load(GOLDEN) as file:
        weights = {k.removeprefix("weights/"): v for k, v in file.items() if k.startswith("weights/")}
        names = ("state", "condition", "t", "output")
        x_t, mu, t, expected = (jnp.asarray(file[f"nafnet{case}/{name}"]) for name in names)
    network, params = network_from_torch(weights)
    network = network.clone(norm_epsilon=1e-3)  # the figures were computed in float64
    got = jax.jit(network.apply)({"params": params}, x_t, mu, t)
    np.testing.assert_allclose(got, expected, atol=5e-6)
    if case == 0:
        half = jax.jit(network.clone(dtype=jnp.bfloat16).apply)({"params": params}, x_t, mu, t)
        assert half.dtype == jnp.float32
        # Five percent of the spread of the outputs: some thirty roundings of 2^-9 in sequence.
        assert 1e-4 < np.abs(half - expected).max() < 0.05 * expected.std()


def test_published_size_has_the_published_number_of_parameters():
    image, t = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    variables = jax.eval_shape(ConditionalNAFNet().init, jax.random.key(0), image, image, t)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 287_965_571
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("h", "w", "c"), [(1, 1, 3), (5, 7, 1), (4, 8, 4)])
@pytest.mark.parametrize("blocks", [((), 1, ()), ((1, 0, 2), 0, (0, 1, 0))])
def test_any_size_channels_and_block_counts(h, w, c, blocks):
    noise, _ = jax.eval_shape(ConditionalNAFNet(4, *blocks).init_with_output, jax.random.key(0), *inputs(h, w, c))
    assert noise.shape == (2, h, w, c)
    assert noise.dtype == jnp.float32


@pytest.fixture(scope="module")
def new_params():
    return jax.jit(TINY.init)(jax.random.key(0), *inputs(5, 7))["params"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_new_blocks_are_the_identity_and_learn(dtype, new_params):
    network, (x_t, mu, t) = TINY.clone(dtype=dtype), inputs(5, 7)

    @jax.jit
    @jax.value_and_grad
    def loss(params, t):
        return jnp.mean((network.apply({"params": params}, x_t, mu, t) - 1) ** 2)

    value, gradient = loss(new_params, t)
    # With beta = gamma = 0 the time has no way in.
    assert loss(new_params, t + 40)[0] == value
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    for stage in ("encoder_0", "decoder_0"):
        assert np.all(gradient[stage]["beta"] != 0)
        assert np.all(gradient[stage]["gamma"] != 0)


def test_weights_start_with_variance_one_over_fan_in(new_params):
    kernel = new_params["encoder_0"]["conv1"]["kernel"]
    assert kernel.shape == (2, 4, 8)
    assert not np.allclose(kernel[0], kernel[1])
    # 64 and 144 draws: the variance is known to about a fifth.
    assert 0.4 < 4 * np.var(kernel) < 1.6
    assert 0.4 < 9 * np.var(new_params["encoder_0"]["conv2"]["kernel"]) < 1.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder_blocks": (2,), "decoder_blocks": (1, 1)}, "decoder_blocks must be 1 numbers, as encoder_blocks"),
        ({"width": 5}, "width must be an even number, found 5"),
    ],
)
def test_bad_fields_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(TINY.clone(**arguments).init, jax.random.key(0), *inputs(2, 2))
