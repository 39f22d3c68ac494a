"""The training objective: one published batch from images to gradients, and what holds for any network."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sel import SpatialEntropyLoss, spatial_entropy_loss
from sel.diffusion import make_schedule
from sel.interop import network_from_torch, network_to_torch
from sel.objective import L1, L2, Draws, Objective, draw_step, l1_loss, l2_loss, training_losses

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden"
SCHEDULE = make_schedule()
LOSSES = {"l1": l1_loss, "l2": l2_loss} | {
    f"{divergence}_{num_bins}": SpatialEntropyLoss(divergence=divergence, num_bins=num_bins, variant="published")
    for divergence in ("relative", "hellinger")
    for num_bins in (8, 16)
}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "objective.npz") as file:
        return {name: jnp.asarray(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def published(golden):
    """The published network on the golden batch: its noise, and from a slope of that to slopes by published name."""
    with np.load(GOLDEN / "nafnet.npz") as file:
        weights = {k.removeprefix("weights/"): v for k, v in file.items() if k.startswith("weights/")}
    network, params = network_from_torch(weights)
    network = network.clone(norm_epsilon=1e-3)  # the figures were computed in float64

    # It runs seven times: compiling it fast saves more than running it fast.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def predict(params, cotangent):
        inputs = golden["state"], golden["lq"], golden["t"]
        noise_hat, pull_back = jax.vjp(lambda params: network.apply({"params": params}, *inputs), params)
        return noise_hat, pull_back(cotangent)[0]

    params = jax.tree.map(jnp.asarray, params)
    noise_hat, _ = predict(params, jnp.zeros_like(golden["state"]))
    return noise_hat, lambda cotangent: network_to_torch(network, predict(params, cotangent)[1])


def objective(golden, noise_fn, loss_fn):
    draws = Draws(golden["t"], golden["noise"])
    return training_losses(Objective(schedule=SCHEDULE, loss_fn=loss_fn), noise_fn, golden["gt"], golden["lq"], draws)


def test_state_step_and_optimum_are_the_published_ones(golden, published):
    seen = {}

    def noise_fn(x_t, mu, t):
        seen.update(state=x_t)
        assert mu is golden["lq"]
        assert t is golden["t"]
        return published[0]

    def loss_fn(step, optimum):
        seen.update(step_mean=step, step_optimum=optimum)
        return l1_loss(step, optimum)

    objective(golden, noise_fn, loss_fn)
    # Images of size 1 in float32, the step some ten roundings of the state; the noise after a network of some hundred.
    for name, value in seen.items():
        np.testing.assert_allclose(value, golden[name], atol=2e-6, err_msg=name)
    np.testing.assert_allclose(published[0], golden["predicted_noise"], atol=5e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_the_published_ones(golden, published, name):
    noise_hat, gradients_of = published

    @jax.jit
    @jax.value_and_grad
    def mean_loss(noise_hat):
        return objective(golden, lambda *_: noise_hat, LOSSES[name]).mean()

    loss, slope = mean_loss(noise_hat)
    np.testing.assert_allclose(loss, golden[f"loss/{name}"], rtol=1e-5)
    gradients = gradients_of(slope)
    names = [key for key in golden if key.startswith(f"grad/{name}/")]
    assert len(names) == 7
    for key in names:
        expected = np.asarray(golden[key])
        got = gradients[key.removeprefix(f"grad/{name}/")]
        # Not tighter in float64: the published schedule was summed in float32, which moves the small step by 1e-5.
        np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max(), err_msg=key)


def images(seed, shape=(3, 8, 9, 3)):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def test_baseline_losses_are_means_over_each_image():
    a, b = images(0), images(1)
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    np.testing.assert_allclose(l1_loss(a, b), np.abs(difference).mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(l2_loss(a, b), (difference**2).mean((1, 2, 3)), rtol=1e-6)


def test_losses_are_functions_with_their_options():
    a, b = images(0), images(1)
    assert (L1()(a, b) == l1_loss(a, b)).all()
    assert (L2()(a, b) == l2_loss(a, b)).all()
    options = {"divergence": "relative", "num_bins": 5, "windows": (1,), "value_range": (-0.1, 1.2)}
    got = jax.jit(SpatialEntropyLoss(**options))(a, b)
    expected = jax.jit(lambda a, b: spatial_entropy_loss(a, b, **options))(a, b)
    assert got.shape == (3,)
    np.testing.assert_array_equal(got, expected)


def test_draws_are_uniform_in_time_and_normal_in_noise():
    shape, objective = (20_000, 2, 2, 1), Objective(schedule=SCHEDULE, loss_fn=l1_loss)
    t, noise, shared = draw_step(jax.random.key(0), objective, shape)
    assert shared == {}
    counts = np.bincount(np.asarray(t), minlength=SCHEDULE.num_steps + 1)
    assert counts[0] == 0
    assert len(counts) == SCHEDULE.num_steps + 1
    # 100 counts of mean 200, standard deviation 14: within five of them.
    assert np.abs(counts[1:] - 200).max() < 70
    # 80,000 draws: mean and variance within five standard errors.
    assert abs(float(noise.mean())) < 5 / np.sqrt(80_000)
    assert abs(float(noise.var()) - 1) < 5 * np.sqrt(2 / 80_000)
    again, other = (draw_step(jax.random.key(seed), objective, shape) for seed in (0, 1))
    assert (again.t == t).all()
    assert (again.noise == noise).all()
    assert (other.t != t).any()


def test_the_true_noise_nearly_finds_the_optimum():
    """The Euler step misses it by up to 0.75/255 (the design's figure): no loss is 0. Without noise it is far off."""
    x0, mu = images(2, (100, 8, 8, 3)), 0.1 * images(3, (100, 8, 8, 3))
    noise, t = jax.random.normal(jax.random.key(4), x0.shape), jnp.arange(1, 101)

    @jax.jit
    def errors(noise_hat):
        loss = training_losses(
            Objective(schedule=SCHEDULE, loss_fn=l2_loss), lambda *_: noise_hat, x0, mu, Draws(t, noise)
        )
        return 255 * jnp.sqrt(loss)

    missed = errors(noise)
    assert 0.1 < missed.max() < 0.75
    assert (errors(0 * noise) > 10 * missed).all()


def test_each_image_has_its_own_loss():
    t, noise = jnp.array([1, 50, 100]), jax.random.normal(jax.random.key(7), (3, 8, 9, 3))

    @jax.jit
    def losses(x0, mu):
        objective = Objective(schedule=SCHEDULE, loss_fn=l2_loss)
        return training_losses(objective, lambda x_t, mu, t: x_t - mu, x0, mu, Draws(t, noise))

    x0, mu = images(5), images(6)
    before, after = losses(x0, mu), losses(x0.at[1].set(0.5), mu.at[1].set(0.1))
    assert ((before == after) == jnp.array([True, False, True])).all()
