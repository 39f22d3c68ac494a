"""Published weights to our networks and back, one published training step, and wrong weights."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sel.diffusion import make_schedule, marginal_sample, posterior_mean, reverse_sde_mean
from sel.errors import UserError
from sel.interop import network_from_torch, network_to_torch
from sel.models import ConditionalNAFNet, ConditionalUNet

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden"


def published_weights(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {k.removeprefix("weights/"): v for k, v in file.items() if k.startswith("weights/")}


def abstract_params(network):
    image, t = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.eval_shape(network.init, jax.random.key(0), image, image, t)["params"]


@pytest.mark.parametrize("name", ["nafnet", "unet"])
def test_published_weights_round_trip_exactly(name):
    weights = published_weights(name)
    back = network_to_torch(*network_from_torch(weights))
    assert set(back) == set(weights)
    for key, value in weights.items():
        assert back[key].dtype == np.float32
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_architecture_is_read_off_the_weights():
    network, _ = network_from_torch(published_weights("nafnet"))
    assert network == ConditionalNAFNet(8, (1, 2, 1), 1, (1, 1, 1))
    network, _ = network_from_torch(published_weights("unet"))
    assert network == ConditionalUNet(4, 2)


counts = st.integers(0, 2)


@given(st.lists(st.tuples(counts, counts), max_size=2), counts)
@settings(deadline=None, max_examples=5)
def test_params_of_any_nafnet_round_trip(levels, middle_blocks):
    network = ConditionalNAFNet(4, tuple(down for down, _ in levels), middle_blocks, tuple(up for _, up in levels))
    check_round_trip(network)


def test_params_of_a_deep_unet_round_trip():
    check_round_trip(ConditionalUNet(4, 3))


def check_round_trip(network):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_params(network))
    same, back = network_from_torch(network_to_torch(network, params))
    assert same == network
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_one_published_training_step():
    """From a batch to losses and gradients, named and arranged as published, through one reverse step."""
    network, params = network_from_torch(published_weights("nafnet"))
    network, params = network.clone(norm_epsilon=1e-3), jax.tree.map(jnp.asarray, params)
    schedule = make_schedule()
    with np.load(GOLDEN / "objective.npz") as file:
        golden = {name: jnp.asarray(file[name]) for name in file.files}
    x0, mu, noise, t = (golden[name] for name in ("gt", "lq", "noise", "t"))
    x_t = marginal_sample(schedule, x0, mu, noise, t)
    optimum = posterior_mean(schedule, x_t, x0, mu, t)

    @jax.jit
    def predict(params, cotangent):
        noise_hat, pull_back = jax.vjp(lambda params: network.apply({"params": params}, x_t, mu, t), params)
        return noise_hat, pull_back(cotangent)[0]

    def miss(noise_hat):
        return reverse_sde_mean(schedule, x_t, mu, noise_hat, t) - optimum

    noise_hat, _ = predict(params, jnp.zeros_like(x_t))
    np.testing.assert_allclose(x_t, golden["state"], atol=1e-6)
    np.testing.assert_allclose(noise_hat, golden["predicted_noise"], atol=5e-6)
    np.testing.assert_allclose(miss(noise_hat), golden["step_mean"] - golden["step_optimum"], atol=2e-6)
    np.testing.assert_allclose(optimum, golden["step_optimum"], atol=2e-6)
    losses = {"l1": lambda noise: jnp.mean(jnp.abs(miss(noise))), "l2": lambda noise: jnp.mean(miss(noise) ** 2)}
    for loss, function in losses.items():
        value, cotangent = jax.value_and_grad(function)(noise_hat)
        np.testing.assert_allclose(value, golden[f"loss/{loss}"], rtol=1e-4)
        gradient = network_to_torch(network, predict(params, cotangent)[1])
        names = [name for name in golden if name.startswith(f"grad/{loss}/")]
        assert len(names) == 7
        for name in names:
            expected = np.asarray(golden[name])
            got = gradient[name.removeprefix(f"grad/{loss}/")]
            # The step and the optimum are close: their float32 difference keeps five digits.
            np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max(), err_msg=name)


def test_all_that_is_wrong_is_in_one_message():
    weights = published_weights("nafnet")
    del weights["intro.bias"], weights["encoders.1.0.beta"]
    weights["extra.weight"] = np.zeros(3, np.float32)
    weights["ending.bias"] = np.zeros(4, np.float32)
    weights["downs.0.bias"] = np.zeros(16, np.int64)
    with pytest.raises(UserError) as caught:
        network_from_torch(weights)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "do not fit a ConditionalNAFNet",
        "2 missing: encoders.1.0.beta, intro.bias",
        "1 unexpected: extra.weight",
        "1 wrong shape: ending.bias (4,) instead of (3,)",
        "1 not floating point: downs.0.bias (int64)",
    ):
        assert part in message


def with_levels(count):
    weights = published_weights("unet")
    return weights | {f"downs.{level}.0.mlp.1.weight": np.zeros((1, 1), np.float32) for level in range(count)}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "neither intro.weight .* nor init_conv.weight .* among the 0 tensors"),
        ({"resnet.fc": np.zeros(3)}, "among the 1 tensors"),
        ({"intro.weight": np.zeros(())}, "no tensor intro.bias, intro.weight, ending.weight with enough axes"),
        ({"intro.weight": np.zeros((8, 6, 3, 3))}, "fit a ConditionalNAFNet: [0-9]+ missing: ending"),
        (
            {"intro.weight": np.zeros((5, 6)), "ending.weight": np.zeros(3)},
            "fit no ConditionalNAFNet: width must be an even number, found 5",
        ),
        (published_weights("nafnet") | {"encoders.9.0.beta": np.zeros(3)}, "1 unexpected: encoders.9.0.beta"),
        ({k: v for k, v in published_weights("nafnet").items() if "downs" not in k}, "unexpected: encoders"),
        (
            published_weights("unet") | {"init_conv.weight": np.zeros((4, 3, 7, 7), np.float32)},
            "init_conv.weight sees 3 channels: .* noisy state alone",
        ),
        (published_weights("unet") | {"final_conv.bias": np.full(3, np.inf)}, "1 not finite: final_conv.bias"),
        (with_levels(5), "missing: .* and [0-9]+ more"),
        (with_levels(90), "90 levels, at most 10"),
    ],
)
def test_foreign_weights_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        network_from_torch(weights)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, f"{layer}.weight")
        for kind, layers in (("nafnet", ("intro", "ending")), ("unet", ("init_conv", "final_conv")))
        for layer in layers
    ],
)
def test_a_damaged_first_or_last_layer_is_named_alone(kind, name):
    weights = published_weights(kind)
    turned = weights | {name: weights[name].swapaxes(0, 1)}
    with pytest.raises(UserError, match=rf"fit a \w+: 1 wrong shape: {name} [^,]*,[^;]*$"):
        network_from_torch(turned)
    lacking = {key: value for key, value in weights.items() if key != name}
    with pytest.raises(UserError, match=f"fit a .*: 1 missing: {name}$"):
        network_from_torch(lacking)
    with pytest.raises(UserError, match=f"1 missing: {name}; 1 unexpected: x$"):
        network_from_torch(lacking | {"x": weights[name]})
