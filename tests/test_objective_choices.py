"""Choices of the objective: what is compared, how t is drawn and weighted, mixtures of losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sel import SpatialEntropyLoss, combined_loss
from sel.diffusion import make_schedule, marginal_sample
from sel.objective import (
    COMPARED,
    T_WEIGHTINGS,
    X0,
    Draws,
    MinSnr,
    Mixture,
    Objective,
    clip_from_outside,
    draw_step,
    l1_loss,
    l2_loss,
    time_law,
    time_weights,
    training_losses,
)

pytestmark = pytest.mark.usefixtures("compile_little")
SCHEDULE = make_schedule()
T = SCHEDULE.num_steps


def tables():
    """theta, exp(-Theta_t dt) and sigma_bar for t = 1..T, and dt, of the default schedule in float64."""
    phase = np.arange(T + 2) / (T + 2)
    f = np.cos((phase + 0.008) / 1.008 * np.pi / 2) ** 2
    theta = 1 - f[1:] / f[0]
    cumulative = np.cumsum(theta) - theta[0]
    dt = -np.log(0.005) / cumulative[-1]
    left = np.exp(-cumulative * dt)
    return theta[1:], left[1:], 50 / 255 * np.sqrt(1 - left[1:] ** 2), dt


THETA, LEFT, SIGMA_BAR, DT = tables()
SLOPES = {"x_prev": 2 * (50 / 255) ** 2 * THETA * DT / SIGMA_BAR, "x0": SIGMA_BAR / LEFT}


def expected_weights(compare, weighting, cap):
    snr = LEFT / SIGMA_BAR
    weights = {
        "none": np.ones(T),
        "noise": 1 / SLOPES[compare],
        "min_snr": np.minimum(1, np.sqrt(cap) / snr) / SLOPES[compare],
    }[weighting]
    return weights / weights.mean()


@pytest.mark.parametrize("compare", ["x_prev", "x0"])
@pytest.mark.parametrize(("weighting", "cap"), [("none", 5.0), ("noise", 5.0), ("min_snr", 5.0), ("min_snr", 0.1)])
def test_weights_follow_their_formulas(compare, weighting, cap):
    weighted = MinSnr(cap) if weighting == "min_snr" else T_WEIGHTINGS[weighting]()
    objective = Objective(schedule=SCHEDULE, loss_fn=l1_loss, compare=COMPARED[compare](), t_weighting=weighted)
    weights = time_weights(objective)
    # Tables are rounded once to float32; exp and quotients of them, some roundings more.
    np.testing.assert_allclose(weights, expected_weights(compare, weighting, cap), rtol=1e-5)
    assert abs(float(weights.mean()) - 1) < 1e-5


def test_min_snr_without_a_cap_is_noise_matching():
    uncapped = objective_of(compare="x0", t_weighting="noise")
    capped = Objective(schedule=SCHEDULE, loss_fn=l1_loss, compare=X0(), t_weighting=MinSnr(1e9))
    np.testing.assert_allclose(time_weights(capped), time_weights(uncapped), rtol=1e-6)


def objective_of(loss_fn=l1_loss, schedule=SCHEDULE, compare="x_prev", clip_x0=None, t_weighting="none", **options):
    compared = X0(clip_x0) if compare == "x0" else COMPARED[compare]()
    choices = {"compare": compared, "t_weighting": T_WEIGHTINGS[t_weighting]()}
    return Objective(schedule=schedule, loss_fn=loss_fn, **choices, **options)


def images(seed, count=T):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(count, 6, 6, 3)), jnp.float32)


def batch():
    """One image for each t."""
    x0, mu = images(0), 0.1 * images(1)
    return x0, mu, Draws(jnp.arange(1, T + 1), jax.random.normal(jax.random.key(2), x0.shape))


@pytest.mark.parametrize("clip_x0", [None, (0.0, 1.0)])
def test_the_clean_estimate_is_compared(clip_x0):
    """Against the formula in float64; the state of float32 is given, its rounding grows with the estimate."""
    x0, mu, draws = batch()
    noise_hat = draws.noise + 0.1 * jax.random.normal(jax.random.key(3), x0.shape)
    objective = objective_of(compare="x0", clip_x0=clip_x0)
    losses = training_losses(objective, lambda *_: noise_hat, x0, mu, draws)
    x_t = marginal_sample(SCHEDULE, x0, mu, draws.noise, draws.t)
    x_t, mean, noise, clean = (np.asarray(x, np.float64) for x in (x_t, mu, noise_hat, x0))
    estimate = (x_t - mean - SIGMA_BAR[:, None, None, None] * noise) / LEFT[:, None, None, None] + mean
    if clip_x0:
        estimate = np.clip(estimate, *clip_x0)
    np.testing.assert_allclose(losses, np.abs(estimate - clean).mean((1, 2, 3)), rtol=1e-4)


def test_the_true_noise_finds_the_clean_image():
    x0, mu, draws = batch()
    losses = training_losses(objective_of(compare="x0"), lambda *_: draws.noise, x0, mu, draws)
    # The rounding of x_t, 6e-8 of its size, times exp(Theta_t dt), at most 200.
    assert float(losses.max()) < 200 * 3e-7


@pytest.mark.parametrize("compare", ["x_prev", "x0"])
def test_l1_with_noise_weights_is_noise_matching(compare):
    """The same multiple of |noise_hat - noise| for each t, but for the Euler error of x_prev."""
    x0, mu, draws = batch()
    error = jax.random.normal(jax.random.key(4), x0.shape)
    objective = objective_of(compare=compare, t_weighting="noise")
    losses = training_losses(objective, lambda *_: draws.noise + error, x0, mu, draws)
    ratio = np.asarray(losses) / np.abs(error).mean((1, 2, 3))
    np.testing.assert_allclose(ratio, 1 / (1 / SLOPES[compare]).mean(), rtol=0.25 if compare == "x_prev" else 1e-3)


def test_stratified_times_fill_every_part_and_stand_in_random_order():
    objective = objective_of(t_sampling="stratified")
    keys = jax.random.split(jax.random.key(0), 500)
    t = np.asarray(jax.jit(jax.vmap(lambda key: draw_step(key, objective, (10, 1, 1, 1)).t))(keys))
    # One of 1..10, one of 11..20, and so on.
    np.testing.assert_array_equal(np.sort((t - 1) // 10), np.tile(np.arange(10), (500, 1)))
    # Each image has all times: the mean of 500 uniform ones, within five standard errors.
    np.testing.assert_allclose(t.mean(0), 50.5, atol=5 * np.sqrt((T**2 - 1) / 12 / 500))
    counts = np.bincount(t.ravel(), minlength=T + 1)[1:]
    assert (counts > 0).all()  # 50 expected each: below 1 with probability 1e-22
    again = draw_step(keys[0], objective, (10, 1, 1, 1)).t
    np.testing.assert_array_equal(again, t[0])


@given(
    count=st.sampled_from([1, 3, 32]),
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["stratified", "importance"]),
)
@settings(deadline=None, max_examples=15)
def test_times_lie_in_their_range_for_any_batch(count, seed, kind):
    objective = objective_of(schedule=make_schedule(num_steps=7), t_sampling=kind, t_weighting="noise")
    t = np.asarray(draw_step(jax.random.key(seed), objective, (count, 1, 1, 1)).t)
    assert ((t >= 1) & (t <= 7)).all()


def test_noise_and_neighbour_weights_do_not_depend_on_how_t_is_drawn():
    loss = SpatialEntropyLoss(neighbor_weights="dirichlet")
    kinds = [objective_of(loss, t_sampling=kind, t_weighting="noise") for kind in ("uniform", "importance")]
    drawn = [draw_step(jax.random.key(5), objective, (4, 3, 3, 1)) for objective in kinds]
    for other in drawn[1:]:
        np.testing.assert_array_equal(other.noise, drawn[0].noise)
        np.testing.assert_array_equal(other.shared["neighbor_weights"], drawn[0].shared["neighbor_weights"])


@pytest.mark.parametrize("weighting", ["none", "noise", "min_snr"])
@pytest.mark.parametrize("compare", ["x_prev", "x0"])
def test_importance_changes_the_draws_but_not_the_objective(compare, weighting):
    uniform, drawn = (
        objective_of(l2_loss, compare=compare, t_weighting=weighting, t_sampling=kind)
        for kind in ("uniform", "importance")
    )
    weights = expected_weights(compare, weighting, 5.0)
    law = weights * SLOPES[compare] / SLOPES["x_prev"]
    law /= law.sum()
    np.testing.assert_allclose(time_law(uniform), np.full(T, 1 / T), rtol=1e-6)
    np.testing.assert_allclose(time_law(drawn), law, rtol=1e-5)
    count = 20_000
    t = np.asarray(draw_step(jax.random.key(0), drawn, (count, 1, 1, 1)).t)
    # Parts of less than one t each: a count is off by no more than the two at its ends, and float32 sums.
    assert np.abs(np.bincount(t, minlength=T + 1)[1:] - law * count).max() <= 2.1
    # P(t) times the loss of t is w_t / T times the plain one: the expectations are the same.
    x0, mu, draws = batch()
    plain = objective_of(l2_loss, compare=compare)
    plain, scaled = (training_losses(o, lambda *_: 0 * draws.noise, x0, mu, draws) for o in (plain, drawn))
    np.testing.assert_allclose(law * np.asarray(scaled), weights / T * np.asarray(plain), rtol=1e-4)


def test_clipping_lets_values_come_back():
    x = jnp.array([-2.0, -2.0, 0.5, 3.0, 3.0])
    slope = jnp.array([-1.0, 1.0, 1.0, 1.0, -1.0])
    value, pull_back = jax.vjp(lambda x: clip_from_outside(x, 0.0, 1.0), x)
    np.testing.assert_array_equal(value, jnp.clip(x, 0, 1))
    # Descent goes against the slope: below the range it may rise, above it may fall.
    np.testing.assert_array_equal(pull_back(slope)[0], [-1.0, 0.0, 1.0, 1.0, 0.0])


MIXTURE = {"entropy": 1.0, "l1": 0.5, "blurred_l1": 2.0, "blur_sigma": 1.0, "num_bins": 4, "windows": (1,)}


@pytest.mark.parametrize("compare", ["x_prev", "x0"])
def test_gradients_of_mixtures_are_finite(compare):
    """Also where the estimate is far outside its range, or the target black."""
    x0, mu = jnp.zeros((3, 8, 8, 3)), jnp.full((3, 8, 8, 3), 0.02)
    draws = Draws(jnp.array([1, 50, 100]), jax.random.normal(jax.random.key(6), x0.shape))
    objective = objective_of(Mixture(**MIXTURE), compare=compare, clip_x0=(0.0, 1.0), t_weighting="min_snr")

    @jax.jit
    @jax.value_and_grad
    def loss(scale):
        noise_hat = scale[:, None, None, None] * draws.noise
        return training_losses(objective, lambda *_: noise_hat, x0, mu, draws).sum()

    for scale in (0.0, 1.0, 100.0):
        value, slopes = loss(jnp.full(3, scale))
        assert np.isfinite(value)
        assert np.isfinite(slopes).all()


def test_a_mixture_is_the_combined_loss():
    a, b = images(0, 2), images(1, 2)
    got = jax.jit(Mixture(**MIXTURE))(a, b)
    np.testing.assert_array_equal(got, jax.jit(lambda a, b: combined_loss(a, b, **MIXTURE))(a, b))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: objective_of(t_sampling="x"), "t_sampling must be one of uniform, stratified, importance, found 'x'"),
        (lambda: MinSnr(0.0), "snr_cap must be above 0 and finite, found 0.0"),
        (lambda: X0((1.0, 0.0)), r"clip_x0 must be \(low, high\) with low < high, or None"),
        (lambda: Mixture(entropy=0.0, l1=0.0), "a mixture needs a weight above 0"),
    ],
)
def test_wrong_choices_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
