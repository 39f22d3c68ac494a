"""Optimizers, learning rates and averages against their formulas, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sel.training.optimizer import OPTIMIZERS, AdamW, Average, Constant, Cosine, Lion, Multistep, milestone_steps

pytestmark = pytest.mark.usefixtures("compile_little")
STEPS = np.arange(51)


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("schedule", ["cosine", "multistep", "constant"])
def test_learning_rates_follow_their_formulas(schedule, warmup):
    course = {
        "cosine": Cosine(1e-5),
        "multistep": Multistep((0.4, 30.0, 0.9), 0.3),
        "constant": Constant(),
    }[schedule]
    rate = AdamW(learning_rate=2e-3, schedule=course, warmup_steps=warmup).rate(50)
    full = {
        "cosine": 1e-5 + (2e-3 - 1e-5) * (1 + np.cos(np.pi * (STEPS - warmup) / (50 - warmup))) / 2,
        "multistep": 2e-3 * 0.3 ** sum(m <= STEPS for m in (20, 30, 45)),
        "constant": np.full(51, 2e-3),
    }[schedule]
    expected = np.where(warmup > STEPS, 2e-3 * STEPS / max(warmup, 1), full)
    # Near the end of the cosine 1 + cos cancels: 2e-3 times some roundings of 1, against 1e-5.
    np.testing.assert_allclose([rate(i) for i in STEPS], expected, rtol=1e-4)
    np.testing.assert_allclose(jax.vmap(rate)(jnp.asarray(STEPS)), expected, rtol=1e-4)


@pytest.mark.parametrize("milestones", [[], [0], [50], [30, 20], [0.5, 25], [1.5], [-0.1], [0.001], [60], [0.5, 0.5]])
def test_milestones_that_cannot_be_are_named(milestones):
    with pytest.raises(ValueError, match=r"milestones must rise, as steps from 1 to 49 or as fractions"):
        milestone_steps(milestones, 50)


@given(fractions=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4, unique=True), steps=st.integers(1000, 10**6))
@settings(deadline=None, max_examples=30)
def test_fractions_are_steps(fractions, steps):
    fractions = sorted({round(fraction, 2) for fraction in fractions})
    whole = milestone_steps(fractions, steps)
    assert milestone_steps(whole, steps) == whole
    np.testing.assert_allclose(np.array(whole) / steps, fractions, atol=0.5 / steps + 1e-12)


GRADIENTS = np.array([[3.0, 4.0], [0.1, -0.2], [-30.0, 1.0]])


def reference(name, clip_norm, rate, decay):
    """The parameters after each gradient."""
    params, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for n, g in enumerate(GRADIENTS, start=1):
        norm = np.linalg.norm(g)
        if clip_norm and norm > clip_norm:
            g = g * clip_norm / norm
        if name == "lion":
            direction = np.sign(0.9 * m + 0.1 * g)
            m = 0.99 * m + 0.01 * g
        else:
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
            direction = (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.99**n)) + 1e-8)
        params = params - rate * (direction + (0 if name == "adam" else decay) * params)
        yield params


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize("name", ["adamw", "adam", "lion"])
def test_optimizers_follow_their_formulas(name, clip_norm):
    options = {"b1": 0.9, "b2": 0.99, "clip_norm": clip_norm} | ({} if name == "adam" else {"weight_decay": 0.1})
    optimizer = OPTIMIZERS[name](**options).transformation(optax.constant_schedule(0.01))
    got = jnp.array([1.0, -2.0])
    state = optimizer.init(got)
    for gradient, expected in zip(GRADIENTS, reference(name, clip_norm, 0.01, 0.1), strict=True):
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, got)
        got = optax.apply_updates(got, updates)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def decay_of(warmup, step, every, limit):
    """The decay at a step, or 1 where nothing moves: as documented, and as ema_pytorch counts, from 0."""
    if warmup == "power":
        count = step - 1
        if count % every:
            return 1.0
        return 0.0 if count <= 100 else min(limit, 1 - (1 + count - 100) ** (-2 / 3))
    if step % every:
        return 1.0
    n = step // every
    return min(limit, (1 + n) / (10 + n)) if warmup == "ratio" else limit


@pytest.mark.parametrize("warmup", ["ratio", "power", "none"])
def test_averages_follow_their_formulas(warmup):
    params = np.random.default_rng(0).normal(size=(160, 3))
    expected, got = params[0], jnp.asarray(params[0], jnp.float32)
    update = jax.jit(Average(decay=0.7, every=3, warmup=warmup).update)
    for step in range(1, 160):
        decay = decay_of(warmup, step, 3, 0.7)
        expected = decay * expected + (1 - decay) * params[step]
        got = update(got, jnp.asarray(params[step], jnp.float32), jnp.asarray(step))
        # Each of 50 moves rounds anew what is left of the others.
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamW(b1=2.0), "b1 must be at least 0 and below 1, found 2.0"),
        (lambda: Lion(learning_rate=float("nan")), "learning_rate must be at least 0 and finite, found nan"),
        (lambda: Average(warmup="x"), "warmup must be one of ratio, power, none, found 'x'"),
        (lambda: Multistep(milestones=(0.5, -1.0)), "milestones must be a list, each element a number above 0"),
    ],
)
def test_wrong_choices_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("schedule", [Cosine(), Constant(), Multistep(milestones=(0.75,))])
def test_a_short_trial_has_a_warm_up_that_ends(schedule):
    """A run of 60 steps with the 200 of a long one reaches its learning rate in the middle."""
    optimizer = AdamW(learning_rate=1e-3, warmup_steps=200, schedule=schedule)
    assert (optimizer.warmup(60), optimizer.warmup(20_000)) == (30, 200)
    rates = [float(optimizer.rate(60)(step)) for step in range(60)]
    np.testing.assert_allclose(rates[:31:10], [0, 1e-3 / 3, 2e-3 / 3, 1e-3], rtol=1e-6)
    assert max(rates) <= 1e-3 * (1 + 1e-6)
