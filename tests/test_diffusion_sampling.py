"""Samplers against the published outputs, and with predictors that know the clean image."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sel.diffusion import (
    SAMPLERS,
    Posterior,
    make_schedule,
    marginal_mean,
    noise_field,
    sample,
)
from sel.interop import network_from_torch

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden"
KEY = jax.random.key(0)


def ideal(schedule, x0):
    """A predictor that knows the clean image."""

    def noise_fn(x_t, mu, t):
        return (x_t - marginal_mean(schedule, x0, mu, t)) / schedule.sigma_bar[t][:, None, None, None]

    return noise_fn


def zero_noise(x_t, mu, t):
    return jnp.zeros_like(x_t)


@pytest.mark.parametrize("sampler", ["posterior", "sde", "ode"])
def test_agrees_with_the_published_samplers(sampler):
    with np.load(GOLDEN / "nafnet.npz") as file:
        weights = {k.removeprefix("weights/"): v for k, v in file.items() if k.startswith("weights/")}
    network, params = network_from_torch(weights)
    network = network.clone(norm_epsilon=1e-3)  # the figures were computed in float64
    with np.load(GOLDEN / ("samplers_posterior.npz" if sampler == "posterior" else "samplers_sde_ode.npz")) as file:
        prefix = "" if sampler == "posterior" else f"{sampler}_"
        mu, draws, expected = (jnp.asarray(file[name]) for name in ("condition", f"{prefix}draws", f"{prefix}output"))
    draws = jnp.broadcast_to(draws, (101, *mu.shape))  # of the ODE's draws, only the first is kept, and used

    def noise_fn(x_t, mu, t):
        return network.apply({"params": params}, x_t, mu, t)

    got = sample(KEY, noise_fn, mu, schedule=make_schedule(), sampler=sampler, draws=draws)
    # An untrained network: the outputs reach 240, and 100 float32 steps add up.
    np.testing.assert_allclose(got, expected, atol=1e-3 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_posterior_sampler_recovers_a_known_image(kind):
    schedule = make_schedule(kind)
    x0, mu = jax.random.uniform(KEY, (2, 2, 6, 5, 3))
    got = sample(KEY, ideal(schedule, x0), mu, schedule=schedule)
    # The last step is the clean estimate at t = 1, where errors are not amplified.
    np.testing.assert_allclose(got, x0, atol=2e-6)


def test_sde_sampler_ends_with_the_mean_and_spread_that_its_recursion_predicts():
    """With a known image, each step is linear in x_t and its mean and variance obey a scalar recursion."""
    schedule = make_schedule()
    theta, sums, sigma, sigma_bar = (
        np.asarray(table, np.float64)
        for table in (schedule.theta, schedule.theta_cumsum, schedule.sigma, schedule.sigma_bar)
    )
    dt, clean, dark = float(schedule.dt), 0.8, 0.1
    mean, variance = dark, schedule.max_sigma**2
    for t in range(100, 0, -1):
        pull = sigma[t] ** 2 / sigma_bar[t] ** 2 * dt
        gain = 1 + theta[t] * dt - pull
        m_t = dark + (clean - dark) * np.exp(-sums[t] * dt)
        mean = gain * mean - theta[t] * dark * dt + pull * m_t
        variance = gain**2 * variance + sigma[t] ** 2 * dt
    x0, mu = jnp.full((1, 48, 48, 3), clean), jnp.full((1, 48, 48, 3), dark)
    got = np.asarray(sample(KEY, ideal(schedule, x0), mu, schedule=schedule, sampler="sde"), np.float64)
    assert abs(got.mean() - mean) < 5 * (variance / got.size) ** 0.5
    assert abs(got.std() / variance**0.5 - 1) < 5 / (2 * got.size) ** 0.5
    # What is left is the last draw, sigma_1 sqrt(dt), and a bias far below it.
    assert abs(variance**0.5 / (sigma[1] * dt**0.5) - 1) < 0.02
    assert abs(mean - clean) < 0.1 * variance**0.5


def test_ode_sampler_converges_to_a_known_image():
    x0, mu = jnp.full((1, 16, 16, 3), 0.8), jnp.full((1, 16, 16, 3), 0.1)
    error = {}
    for num_steps in (50, 100):
        schedule = make_schedule(num_steps=num_steps)
        got = sample(KEY, ideal(schedule, x0), mu, schedule=schedule, sampler="ode")
        error[num_steps] = float(jnp.sqrt(jnp.mean((got - x0) ** 2)))
    # Euler is of first order, and the smallest steps of the cosine schedule shrink faster than 1/T.
    assert error[100] < error[50] / 2 < 1 / 255


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_given_draws_replace_the_key(sampler):
    schedule, mu = make_schedule(num_steps=5), jnp.full((2, 3, 4, 1), 0.2)
    times = [0, 5, 4, 3, 2, 1]
    draws = jnp.stack([noise_field(jax.random.fold_in(KEY, t), mu.shape) for t in times])
    from_key = sample(KEY, zero_noise, mu, schedule=schedule, sampler=sampler)
    from_draws = sample(jax.random.key(9), zero_noise, mu, schedule=schedule, sampler=sampler, draws=draws)
    np.testing.assert_allclose(from_key, from_draws, rtol=1e-5, atol=1e-5)
    assert not np.allclose(from_key, sample(jax.random.key(9), zero_noise, mu, schedule=schedule, sampler=sampler))


def test_trajectory_runs_from_the_start_state_to_the_sample():
    schedule, mu = make_schedule(num_steps=4), jnp.full((2, 3, 3, 1), 0.2)
    draws = jax.random.normal(KEY, (5, *mu.shape))
    got, states = sample(KEY, zero_noise, mu, schedule=schedule, draws=draws, return_trajectory=True)
    assert states.shape == (5, *mu.shape)
    np.testing.assert_allclose(states[0], mu + schedule.max_sigma * draws[0], rtol=1e-6)
    np.testing.assert_array_equal(states[-1], got)
    np.testing.assert_array_equal(got, sample(KEY, zero_noise, mu, schedule=schedule, draws=draws))


def test_predictor_sees_every_time_once_in_one_scan():
    schedule, mu, seen = make_schedule(num_steps=6), jnp.zeros((2, 3, 3, 1)), []

    def noise_fn(x_t, mu, t):
        assert t.shape == (2,)
        assert t.dtype == jnp.int32
        jax.debug.callback(lambda times: seen.append(times.tolist()), t, ordered=True)
        return jnp.zeros_like(x_t)

    jaxpr = jax.make_jaxpr(lambda: sample(KEY, noise_fn, mu, schedule=schedule))()
    assert [equation.primitive.name for equation in jaxpr.eqns].count("scan") == 1
    jax.block_until_ready(sample(KEY, noise_fn, mu, schedule=schedule))
    jax.effects_barrier()
    assert seen == [[t, t] for t in range(6, 0, -1)]


def test_clipping_bounds_the_clean_estimate():
    schedule, mu = make_schedule(), jnp.full((1, 8, 8, 3), 0.1)

    def wrong(x_t, mu, t):
        return jnp.full_like(x_t, 3)

    free = sample(KEY, wrong, mu, schedule=schedule)
    clipped = sample(KEY, wrong, mu, schedule=schedule, sampler=Posterior(clip_x0=(0.0, 1.0)))
    assert np.abs(free).max() > 2
    # The last step returns the clean estimate itself.
    assert 0 <= clipped.min() <= clipped.max() <= 1
    x0 = jnp.full_like(mu, 0.7)
    right = sample(KEY, ideal(schedule, x0), mu, schedule=schedule, sampler=Posterior(clip_x0=(0.0, 1.0)))
    np.testing.assert_allclose(right, x0, atol=2e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "euler"}, "sampler must be one of posterior, sde, ode, ddim, dpm_solver, or a .*, found 'euler'"),
        ({"num_steps": 0}, "num_steps must be a whole number from 1 to 100, .*, found 0"),
        ({"num_steps": 101}, "num_steps must be a whole number from 1 to 100, .*, found 101"),
        (
            {"draws": jnp.zeros((3, 1, 4, 4, 3))},
            r"draws must have the shape \(101, 1, 4, 4, 3\), found",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(KEY, zero_noise, jnp.zeros((1, 4, 4, 3)), schedule=make_schedule(), **arguments)
