"""Process functions against the published figures, a float64 oracle, closed forms and moments."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sel import diffusion

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden" / "sde.npz"
KINDS = ("cosine", "linear", "constant")
T = 100


def oracle(kind, x0, mu, x_t, noise, t, sigma_max=50 / 255, eps=0.005):
    """Every process function in float64, from the formulas; `t` is one integer."""
    i = np.arange(T + 2, dtype=np.float64)
    f = np.cos((i / (T + 2) + 0.008) / 1.008 * np.pi / 2) ** 2
    theta = {
        "cosine": 1 - f[1:] / f[0],
        "linear": np.linspace(0.1 / (T + 1), 20 / (T + 1), T + 1),
        "constant": np.ones(T + 1),
    }[kind]
    sums = np.cumsum(theta) - theta[0]
    dt = -np.log(eps) / sums[T]
    a, b, c = np.exp(-theta[t] * dt), np.exp(-sums[t] * dt), np.exp(-sums[t - 1] * dt)
    sigma_bar = sigma_max * np.sqrt(1 - b**2)
    variance, score = 2 * sigma_max**2 * theta[t], -noise / sigma_bar
    mean = mu + (x0 - mu) * b
    towards_mu = a * (1 - c**2) / (1 - b**2) * (x_t - mu)
    return {
        "marginal_mean": mean,
        "marginal_sample": mean + sigma_bar * noise,
        "score": score,
        "sde": x_t - (theta[t] * (mu - x_t) - variance * score) * dt,
        "ode": x_t - (theta[t] * (mu - x_t) - variance * score / 2) * dt,
        "optimum": towards_mu + c * (1 - a**2) / (1 - b**2) * (x0 - mu) + mu,
        "std": sigma_max * np.sqrt((1 - a**2) * (1 - c**2) / (1 - b**2)),
        "x0": (x_t - mu - sigma_bar * noise) / b + mu,
        "start": mu + sigma_max * noise,
    }


def ours(schedule, x0, mu, x_t, noise, t):
    return {
        "marginal_mean": diffusion.marginal_mean(schedule, x0, mu, t),
        "marginal_sample": diffusion.marginal_sample(schedule, x0, mu, noise, t),
        "score": diffusion.score_from_noise(schedule, noise, t),
        "sde": diffusion.reverse_sde_mean(schedule, x_t, mu, noise, t),
        "ode": diffusion.reverse_ode_mean(schedule, x_t, mu, noise, t),
        "optimum": diffusion.posterior_mean(schedule, x_t, x0, mu, t),
        "std": diffusion.posterior_std(schedule, t),
        "x0": diffusion.x0_from_noise(schedule, x_t, mu, noise, t),
        "start": diffusion.start_state(schedule, mu, noise),
    }


def images(seed, batch=3):
    rng = np.random.default_rng(seed)
    x0, mu = rng.uniform(size=(2, batch, 4, 5, 3)).astype(np.float32)
    x_t, noise = rng.normal(size=(2, batch, 4, 5, 3)).astype(np.float32)
    return jnp.asarray(x0), jnp.asarray(mu), jnp.asarray(x_t), jnp.asarray(noise)


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_published_figures(kind):
    with np.load(GOLDEN) as file:
        golden = {name.split("/")[1]: file[name] for name in file.files if name.startswith(f"{kind}_T100_s50_")}
    x0, mu, x_t, noise_hat, noise = (
        jnp.asarray(golden[name], jnp.float32) for name in ("x0", "mu", "xt", "predicted_noise", "noise")
    )
    schedule, t = diffusion.make_schedule(kind), jnp.asarray(golden["t"])
    got = ours(schedule, x0, mu, x_t, noise_hat, t)
    x0_hat = got["x0"]
    spread = diffusion.posterior_std(schedule, t)[:, None, None, None]
    got["posterior_step"] = diffusion.posterior_mean(schedule, x_t, x0_hat, mu, t) + spread * noise
    names = {
        "marginal_mean": "marginal_mean",
        "score": "score",
        "sde": "reverse_sde_step_mean",
        "ode": "reverse_ode_step",
        "optimum": "reverse_optimum_step",
        "std": "posterior_std",
        "x0": "x0_from_noise",
        "posterior_step": "reverse_posterior_step",
    }
    for name, golden_name in names.items():
        # The published tables are float32: 1e-5 of the largest figure.
        expected = golden[golden_name]
        np.testing.assert_allclose(got[name], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name)


@given(st.sampled_from(KINDS), st.integers(1, T), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_agrees_with_the_float64_oracle_at_every_time(kind, t, seed):
    inputs = images(seed)
    got = ours(diffusion.make_schedule(kind), *inputs, t)
    expected = oracle(kind, *(np.asarray(array, np.float64) for array in inputs), t)
    for name, value in expected.items():
        # Some ten float32 roundings of 6e-8, and an exponent of 5.3 that carries its own: well within 5e-6.
        np.testing.assert_allclose(got[name], value, atol=5e-6 * np.abs(value).max() + 1e-12, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_small_exponents_keep_their_digits_at_the_first_steps(kind):
    x0, mu, _, _ = images(0)
    for t in (1, 2, 3):
        far = mu + 1.0
        got = diffusion.posterior_mean(diffusion.make_schedule(kind), far, mu, mu, t) - mu
        expected = oracle(kind, 0.0, 0.0, 1.0, 0.0, t)["optimum"]
        np.testing.assert_allclose(got, np.full(x0.shape, expected), atol=5e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_step_ends_at_the_clean_image_without_noise(kind):
    schedule, (x0, mu, x_t, _) = diffusion.make_schedule(kind), images(1)
    assert diffusion.posterior_std(schedule, 1) == 0
    np.testing.assert_allclose(diffusion.posterior_mean(schedule, x_t, x0, mu, 1), x0, atol=5e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_posterior_and_marginal_fit_together(kind):
    """Averaging x_{t-1} given x_t over x_t gives the marginal of t - 1: mean and variance."""
    schedule, (x0, mu, _, _) = diffusion.make_schedule(kind), images(2)
    for t in (2, 37, T):
        mean_t, before = diffusion.marginal_mean(schedule, x0, mu, t), diffusion.marginal_mean(schedule, x0, mu, t - 1)
        np.testing.assert_allclose(diffusion.posterior_mean(schedule, mean_t, x0, mu, t), before, atol=1e-6)
        gain = diffusion.posterior_mean(schedule, mean_t + 1, x0, mu, t) - before
        variance = (gain * schedule.sigma_bar[t]) ** 2 + diffusion.posterior_std(schedule, t) ** 2
        np.testing.assert_allclose(variance, jnp.full_like(variance, schedule.sigma_bar[t - 1] ** 2), rtol=1e-4)


def test_score_is_the_gradient_of_the_log_density():
    schedule, (x0, mu, _, noise) = diffusion.make_schedule(), images(3)
    t = jnp.array([1, 40, 100])
    mean, sigma_bar = diffusion.marginal_mean(schedule, x0, mu, t), schedule.sigma_bar[t][:, None, None, None]
    x_t = diffusion.marginal_sample(schedule, x0, mu, noise, t)
    gradient = jax.grad(lambda x: jnp.sum(-(((x - mean) / sigma_bar) ** 2) / 2))(x_t)
    score = diffusion.score_from_noise(schedule, noise, t)
    # x_t - mean has an absolute rounding of 1e-7, divided by sigma_bar^2 = 1.4e-5 at t = 1.
    np.testing.assert_allclose(score, gradient, rtol=1e-4, atol=3e-2)


def test_true_noise_gives_the_clean_image_back():
    schedule, (x0, mu, _, noise) = diffusion.make_schedule(), images(4)
    t = jnp.array([1, 60, 100])
    x_t = diffusion.marginal_sample(schedule, x0, mu, noise, t)
    # A rounding of 1e-7 grows by 1/eps = 200 at t = T.
    np.testing.assert_allclose(diffusion.x0_from_noise(schedule, x_t, mu, noise, t), x0, atol=1e-4)


def test_euler_step_with_true_noise_misses_the_optimum_by_what_the_method_states():
    schedule = diffusion.make_schedule()
    x0, mu, noise = jnp.ones((T, 1, 1, 1)), jnp.zeros((T, 1, 1, 1)), 3 * jnp.ones((T, 1, 1, 1))
    t = jnp.arange(1, T + 1)
    x_t = diffusion.marginal_sample(schedule, x0, mu, noise, t)
    miss = diffusion.reverse_sde_mean(schedule, x_t, mu, noise, t) - diffusion.posterior_mean(schedule, x_t, x0, mu, t)
    assert 0.1 < 255 * np.abs(miss).max() < 1.5


def test_marginal_moments_by_monte_carlo():
    schedule, count = diffusion.make_schedule(), 40_000
    shape = (2, count, 1, 1)
    x0, mu, t = jnp.full(shape, 0.9), jnp.full(shape, 0.1), jnp.array([5, 60])
    draws = diffusion.marginal_sample(schedule, x0, mu, jax.random.normal(jax.random.key(0), shape), t)
    for i in range(2):
        expected = oracle("cosine", 0.9, 0.1, 0.0, 0.0, int(t[i]))["marginal_mean"]
        sigma_bar = float(schedule.sigma_bar[t[i]])
        # Five standard errors of the mean and of the standard deviation.
        assert abs(float(draws[i].mean()) - expected) < 5 * sigma_bar / count**0.5
        assert abs(float(draws[i].std()) - sigma_bar) < 5 * sigma_bar / (2 * count) ** 0.5


def test_one_time_for_all_equals_a_time_each():
    schedule, inputs = diffusion.make_schedule(), images(5)
    one, each = ours(schedule, *inputs, 17), ours(schedule, *inputs, jnp.full(3, 17))
    for name, value in one.items():
        np.testing.assert_allclose(np.broadcast_to(value, each[name].shape), each[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("t", [1, 2, T])
def test_every_gradient_is_finite(t):
    schedule, inputs = diffusion.make_schedule(), images(6)

    def total(*arrays):
        return sum(jnp.sum(value) for value in ours(schedule, *arrays, t).values())

    for gradient in jax.grad(total, argnums=(0, 1, 2, 3))(*inputs):
        assert np.all(np.isfinite(gradient))
