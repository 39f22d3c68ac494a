"""Samplers as objects: their options, their names, and one from outside."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_runs import configured

from sel.choices import setting
from sel.diffusion import (
    SAMPLERS,
    DpmSolver,
    Posterior,
    Sampler,
    Sde,
    Transition,
    X0Sampler,
    implicit_step,
    make_sampler,
    make_schedule,
    sample,
    x0_from_noise,
)
from sel.diffusion.samplers import as_range
from sel.restoration import TiledRestore
from sel.training import build_restore, sampler_steps

pytestmark = pytest.mark.usefixtures("compile_little")
KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Momentum(Sampler):
    """`Ddim` whose clean estimate is a running mean: it remembers the mean and how often it was told."""

    few_steps: ClassVar[int | None] = 4
    decay: float = setting(0.0, at_least=0, below=1, doc="what is kept of the mean")

    def start(self, x_t):
        return {"mean": jnp.zeros_like(x_t), "count": jnp.zeros_like(x_t)}

    def step(self, schedule, x_t, mu, noise_hat, state, times):
        x0_hat = x0_from_noise(schedule, x_t, mu, noise_hat, times.t)
        decay = jnp.where(state["count"] > 0, self.decay, 0)
        mean = decay * state["mean"] + (1 - decay) * x0_hat
        x_s = implicit_step(schedule, x_t, mean, mu, times.t, s=times.s)
        return Transition(x_s, None, {"mean": mean, "count": state["count"] + 1})


class Pointwise(nn.Module):
    @nn.compact
    def __call__(self, x_t, mu, t):
        return 0.7 * (x_t - mu) + 0.01 * t[:, None, None, None]


def predict(x_t, mu, t):
    return Pointwise().apply({}, x_t, mu, t)


def test_a_sampler_from_outside_is_one_entry(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "momentum", Momentum)
    schedule, mu = make_schedule(num_steps=8), jax.random.uniform(KEY, (1, 70, 150, 3)) / 5
    # As a function of arrays: without memory it is `Ddim`.
    options = {"schedule": schedule, "num_steps": 4}
    np.testing.assert_array_equal(
        sample(KEY, predict, mu, sampler="momentum", **options), sample(KEY, predict, mu, sampler="ddim", **options)
    )
    expected = sample(KEY, predict, mu, sampler=Momentum(decay=0.5), **options)
    assert np.abs(expected - sample(KEY, predict, mu, sampler="ddim", **options)).max() > 0.01
    # In tiles, whose parts carry their state.
    tiled, whole = (
        TiledRestore(Pointwise(), schedule, sampler=Momentum(decay=0.5), num_steps=4, tile=tile, overlap=0)
        for tile in (64, 640)
    )
    np.testing.assert_allclose(tiled(KEY, {}, np.asarray(mu[0])), whole(KEY, {}, np.asarray(mu[0])), atol=1e-4)
    # In a configuration, whose keys are its fields.
    config = configured({"sampler": {"method": "momentum", "num_steps": 0, "decay": 0.5}})
    assert sampler_steps(config) == 4
    assert build_restore(config).sampler == Momentum(decay=0.5)


@pytest.mark.parametrize("clip_x0", [(1.0, 0.0), (0.5, 0.5), (0, 0), (float("nan"), 1.0)])
@pytest.mark.parametrize("sampler", [kind for kind in SAMPLERS.values() if issubclass(kind, X0Sampler)])
def test_a_range_that_is_none_is_refused(sampler, clip_x0):
    with pytest.raises(ValueError, match=r"clip_x0 must be \(low, high\), two numbers with low < high, or None, found"):
        sampler(clip_x0=clip_x0)


@pytest.mark.parametrize("value", [(0.0,), (0.0, 0.5, 1.0), ("0", "1"), 1.0, (None, 1.0), "01"])
def test_what_is_no_pair_of_numbers_is_refused(value):
    with pytest.raises(ValueError, match=r"clip_x0 must be \(low, high\), two numbers"):
        as_range("clip_x0", value)


def test_ranges_are_two_numbers_of_any_kind():
    for value in ((0, 1), [0.0, 1.0], (np.float32(0), np.int64(1))):
        assert as_range("clip_x0", value) == (0.0, 1.0)
    assert Posterior(clip_x0=(0, 1)) == Posterior(clip_x0=(0.0, 1.0))


def test_samplers_are_made_from_names():
    assert make_sampler("dpm_solver", clip_x0=(0, 1)) == DpmSolver(clip_x0=(0.0, 1.0))
    assert make_sampler(Sde()) == Sde()
    for sampler, message in (("sde", "the sampler 'sde', which has no options"), (Sde(), r"Sde\(\), which has no opt")):
        with pytest.raises(ValueError, match=f"clip_x0 is no option of .*{message}"):
            make_sampler(sampler, clip_x0=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"clip is no option of the sampler 'ddim', which has clip_x0"):
        make_sampler("ddim", clip=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"sampler must be one of posterior, .*, or a Sampler, found 'euler'"):
        make_sampler("euler")
