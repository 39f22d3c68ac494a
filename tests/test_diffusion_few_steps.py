"""Samplers with fewer steps than the diffusion: exact transitions, the choice of times, orders of convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sel.diffusion import (
    BLOCK,
    implicit_step,
    make_schedule,
    marginal_sample,
    noise_field,
    posterior_mean,
    posterior_std,
    sample,
    sampling_times,
)

pytestmark = pytest.mark.usefixtures("compile_little")
KEY = jax.random.key(0)
MU, X0, X_T, NOISE = jax.random.normal(KEY, (4, 2, 3, 5, 3))
PAIRS = [(100, 99), (100, 60), (60, 3), (2, 1), (7, 0)]


def tables(schedule):
    decay = np.exp(-np.asarray(schedule.theta_cumsum, np.float64) * float(schedule.dt))
    return decay, schedule.max_sigma**2 * (1 - decay**2)


@pytest.mark.parametrize(("t", "s"), PAIRS)
@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_transitions_are_those_of_conditioning_gaussians(kind, t, s):
    """x_s given x_t and x0 in float64, by Bayes' rule for x_t = mu + A (x_s - mu) + noise."""
    schedule = make_schedule(kind)
    decay, variance = tables(schedule)
    a = decay[t] / decay[s]
    between = schedule.max_sigma**2 * (1 - a**2)
    mu, x0, x_t, noise = (np.asarray(x, np.float64) for x in (MU, X0, X_T, NOISE))
    prior = mu + decay[s] * (x0 - mu)
    gain = variance[s] * a / (a**2 * variance[s] + between)
    mean = prior + gain * (x_t - mu - a * (prior - mu))
    # Differences of Theta in float32: 1e-7 of Theta_t, up to 1e-5 of a small difference.
    np.testing.assert_allclose(posterior_mean(schedule, X_T, X0, MU, t, s=s), mean, rtol=1e-4, atol=1e-5)
    deviation = np.sqrt(variance[s] * between / (a**2 * variance[s] + between))
    np.testing.assert_allclose(posterior_std(schedule, t, s=s), deviation, rtol=1e-4, atol=1e-8)
    x_t, x_s = (mu + decay[i] * (x0 - mu) + np.sqrt(variance[i]) * noise for i in (t, s))
    got = implicit_step(schedule, jnp.asarray(x_t, jnp.float32), X0, MU, t, s=s)
    # The noise is found back as a difference, divided by sigma_bar_t: 0.006 at t = 2.
    np.testing.assert_allclose(got, x_s, atol=2e-6)


@pytest.mark.parametrize("t", [1, 40, 100])
def test_the_next_time_is_the_default(t):
    schedule = make_schedule()
    for step in (posterior_mean, implicit_step):
        np.testing.assert_array_equal(step(schedule, X_T, X0, MU, t), step(schedule, X_T, X0, MU, t, s=t - 1))
    assert posterior_std(schedule, t) == posterior_std(schedule, t, s=t - 1)


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("num_steps", [1, 2, 5, 20, 57, 100])
def test_times_fall_from_the_last_to_0_evenly_in_theta(kind, num_steps):
    schedule = make_schedule(kind)
    steps = sampling_times(schedule, num_steps=num_steps)
    t, s = np.asarray(steps.t), np.asarray(steps.s)
    assert (t[0], s[-1]) == (100, 0)
    np.testing.assert_array_equal(t[1:], s[:-1])
    assert (t > s).all()
    if num_steps <= 20:
        theta = np.asarray(schedule.theta_cumsum, np.float64)
        wanted = theta[-1] * (1 - np.arange(num_steps) / num_steps)
        # Half the step to a neighbour.
        assert (np.abs(theta[t] - wanted) <= 0.51 * np.asarray(schedule.theta)[np.minimum(t + 1, 100)]).all()
    if num_steps == 100:
        np.testing.assert_array_equal(t, np.arange(100, 0, -1))


def test_all_steps_are_the_default():
    schedule, mu = make_schedule(num_steps=6), jnp.full((1, 3, 4, 3), 0.3)
    for sampler in ("posterior", "dpm_solver"):
        options = {"schedule": schedule, "sampler": sampler}
        default = sample(KEY, quarter, mu, **options)
        np.testing.assert_array_equal(default, sample(KEY, quarter, mu, num_steps=6, **options))
        assert not np.array_equal(default, sample(KEY, quarter, mu, num_steps=3, **options))


def quarter(x_t, mu, t):
    return x_t / 4


@pytest.mark.parametrize(("sampler", "order"), [("ode", 1), ("ddim", 1), ("dpm_solver", 2)])
def test_order_of_convergence(sampler, order):
    """For x0 ~ N(m, v) the best prediction and the solution of the probability-flow ODE are known."""
    schedule = make_schedule("constant", num_steps=512)
    mean, variance = 0.7, 0.05**2
    mu = jnp.full((1, 2, 2, 1), 0.1)

    def moments(t):
        decay = jnp.exp(-schedule.theta_cumsum[t] * schedule.dt)
        return mu + decay * (mean - mu), decay**2 * variance + schedule.sigma_bar[t] ** 2

    def noise_fn(x_t, mu, t):
        center, spread = moments(t[0])
        return schedule.sigma_bar[t[0]] * (x_t - center) / spread

    def error(num_steps):
        options = {"schedule": schedule, "sampler": sampler, "num_steps": num_steps}
        _, states = sample(KEY, noise_fn, mu, return_trajectory=True, **options)
        # Half way, at t = 256, where every number of steps here has a state.
        (start, first), (center, half) = moments(512), moments(256)
        exact = center + jnp.sqrt(half / first) * (states[0] - start)
        return float(jnp.abs(states[num_steps // 2] - exact).max())

    coarse, fine = error(16), error(64)
    # A quarter of the step: 4 or 16 times less error, here within a third; 1e-6 is rounding.
    assert fine < max(coarse / 4**order * 1.35, 1e-6)
    assert order == 2 or fine > coarse / 8


def test_posterior_steps_keep_the_marginals():
    """From x_t of the true distribution, 3 of 100 steps with the true image end at it, with the right spread before."""
    schedule = make_schedule()
    x0, mu = jnp.full((1, 64, 64, 3), 0.8), jnp.full((1, 64, 64, 3), 0.1)

    def ideal(x_t, mu, t):
        clean = marginal_sample(schedule, x0, mu, jnp.zeros_like(mu), t)
        return (x_t - clean) / schedule.sigma_bar[t][:, None, None, None]

    steps = sampling_times(schedule, num_steps=3)
    got, states = sample(KEY, ideal, mu, schedule=schedule, num_steps=3, return_trajectory=True)
    np.testing.assert_allclose(got, x0, atol=1e-5)
    for state, s in zip(states[1:-1], steps.s[:-1], strict=True):
        sigma = float(schedule.sigma_bar[s])
        assert abs(float(state.std()) / sigma - 1) < 5 / (2 * state.size) ** 0.5


def test_noise_belongs_to_places():
    whole = noise_field(KEY, (2, 150, 140, 3))
    assert abs(float(whole.std()) - 1) < 0.02
    np.testing.assert_array_equal(noise_field(KEY, (1, 70, 90, 3)), whole[:1, :70, :90])
    np.testing.assert_array_equal(noise_field(KEY, (2, 80, 140, 3), first_block=(1, 0)), whole[:, BLOCK : BLOCK + 80])
    for other in (whole[1:, :64, :64], whole[:1, :64, 64:128], whole[:1, 64:128, :64]):
        assert abs(float(jnp.mean(other * whole[:1, :64, :64]))) < 0.05
