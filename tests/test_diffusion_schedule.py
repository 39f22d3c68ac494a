"""Schedules against the published tables, closed forms and bad arguments."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sel.diffusion import make_schedule

pytestmark = pytest.mark.usefixtures("compile_little")
GOLDEN = Path(__file__).parent / "golden" / "sde.npz"
TABLES = ("theta", "sigma", "theta_cumsum", "sigma_bar", "dt")
schedules = st.builds(
    make_schedule,
    st.sampled_from(["cosine", "linear", "constant"]),
    st.integers(1, 50),
    st.floats(0.01, 1.0),
    st.floats(0.001, 0.5),
)


def test_agrees_with_the_published_tables():
    with np.load(GOLDEN) as golden:
        names = sorted({name.split("/")[0] for name in golden.files})
        assert len(names) == 7
        for name in names:
            kind, steps, sigma, eps = name.split("_")
            schedule = make_schedule(kind, int(steps[1:]), int(sigma[1:]) / 255, float(eps[1:]))
            for table in TABLES:
                # The published tables are float32 sums.
                np.testing.assert_allclose(getattr(schedule, table), golden[f"{name}/{table}"], rtol=1e-5, atol=1e-6)


def test_published_settings_are_the_defaults():
    schedule = make_schedule()
    np.testing.assert_allclose(schedule.dt, 0.1040938, rtol=1e-6)
    # Stated from float32 tables, where 1 - f(2)/f(0) loses four digits.
    np.testing.assert_allclose(schedule.theta[1], 0.00169456, atol=1.2e-7)
    sigma_bar = 255 * schedule.sigma_bar[np.array([1, 10, 50, 100])]
    np.testing.assert_allclose(sigma_bar, [0.9391, 8.5229, 46.6317, 49.9994], atol=1e-4)


@given(schedules)
@settings(deadline=None, max_examples=20)
def test_noise_grows_from_nothing_to_rest(schedule):
    assert schedule.theta_cumsum[0] == 0
    assert schedule.sigma_bar[0] == 0
    assert np.all(np.diff(schedule.sigma_bar) > 0)
    assert schedule.sigma_bar[-1] < schedule.max_sigma
    for table in TABLES[:-1]:
        values = getattr(schedule, table)
        assert values.shape == (schedule.num_steps + 1,)
        assert values.dtype == jnp.float32
        assert np.all(np.isfinite(values))


@given(st.sampled_from(["cosine", "linear", "constant"]), st.integers(1, 200), st.floats(1e-4, 0.9))
@settings(deadline=None, max_examples=20)
def test_eps_is_what_remains_after_the_last_step(kind, num_steps, eps):
    schedule = make_schedule(kind, num_steps, eps=eps)
    # Two float32 roundings of an exponent of at most 10.
    np.testing.assert_allclose(np.exp(-np.float64(schedule.theta_cumsum[-1]) * np.float64(schedule.dt)), eps, rtol=2e-6)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("kind", "cosin"),
        ("num_steps", 0),
        ("max_sigma", 0.0),
        ("max_sigma", float("nan")),
        ("max_sigma", float("inf")),
        ("eps", 0.0),
        ("eps", 1.0),
    ],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .*, found {value!r}"):
        make_schedule(**{argument: value})


def test_is_a_pytree_that_jit_and_sharding_accept():
    schedule = make_schedule(num_steps=7)
    assert len(jax.tree.leaves(schedule)) == 5
    doubled = jax.tree.map(lambda leaf: 2 * leaf, schedule)
    assert (doubled.num_steps, doubled.max_sigma) == (7, schedule.max_sigma)
    np.testing.assert_allclose(jax.jit(lambda s: s.sigma_bar[s.num_steps])(schedule), schedule.sigma_bar[7])
    batched = jax.vmap(lambda s, t: s.theta[t], in_axes=(None, 0))(schedule, jnp.arange(3))
    np.testing.assert_allclose(batched, schedule.theta[:3])
    everywhere = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec())
    moved = jax.jit(lambda s: s, in_shardings=everywhere, out_shardings=everywhere)(schedule)
    np.testing.assert_array_equal(moved.theta, schedule.theta)
