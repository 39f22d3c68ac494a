"""From a degraded image to a clean one: the reverse process, driven by a noise predictor."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sel.diffusion import irsde
from sel.diffusion.noise import noise_field
from sel.diffusion.schedule import Schedule
from sel.types import NoiseFn

Images = Float[Array, "b h w c"]
States = Float[Array, "s b h w c"]

METHODS = ("posterior", "sde", "ode", "ddim", "dpm_solver")
# Methods that estimate the clean image, and hence can clip it.
CLIPPING = ("posterior", "ddim", "dpm_solver")


class Step(NamedTuple):
    """One reverse step, or one row for each.

    Attributes:
        t: Where it begins.
        s: Where it ends.
        slope: How much of the last change of the clean estimate is added to it; 0 but for "dpm_solver".
    """

    t: Int[Array, "*n"]
    s: Int[Array, "*n"]
    slope: Float[Array, "*n"]


def sampling_steps(schedule: Schedule, *, method: str = "posterior", num_steps: int | None = None) -> Step:
    """The steps that lead from T to 0, evenly spaced in Theta: the clean image fades in by equal factors.

        Theta_{t_i} ~ (1 - i / num_steps) Theta_T
        slope_i = h_i / (2 h_{i-1}),   h = log(C / sigma_bar_s) - log(B / sigma_bar_t)

    rounded to times of which no two are equal. The first step has no earlier one and the last an infinite h: their
    slope is 0.

    Args:
        schedule: The noise schedule.
        method: As in `sample`.
        num_steps: From 1 to T, which is the default.

    Returns:
        One row for each step, in the order of the steps.

    Raises:
        ValueError: An unknown method, or `num_steps` out of range.
    """
    num_steps = schedule.num_steps if num_steps is None else num_steps
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    if not isinstance(num_steps, int) or not 1 <= num_steps <= schedule.num_steps:
        raise ValueError(
            f"num_steps: got {num_steps}, expected 1 to {schedule.num_steps}, the steps of the diffusion that the "
            "network was trained with"
        )
    return _steps(schedule, method, num_steps)


@partial(jax.jit, static_argnames=("method", "num_steps"))
def _steps(schedule: Schedule, method: str, num_steps: int) -> Step:
    """As one program: operation by operation, compiling them would take half a second."""
    times = _times(schedule, num_steps)
    slope = jnp.zeros(num_steps)
    if method == "dpm_solver" and num_steps > 2:
        level = -schedule.theta_cumsum[times[:-1]] * schedule.dt - jnp.log(schedule.sigma_bar[times[:-1]])
        change = jnp.diff(level)
        slope = slope.at[1:-1].set(change[1:] / (2 * change[:-1]))
    return Step(times[:-1], times[1:], slope)


def _times(schedule: Schedule, num_steps: int) -> Int[Array, " n"]:
    """T = t_0 > t_1 > ... > t_num_steps = 0."""
    index = jnp.arange(num_steps + 1, dtype=jnp.int32)
    wanted = (num_steps - index) / num_steps * schedule.theta_cumsum[-1]
    nearest = jnp.interp(wanted, schedule.theta_cumsum, jnp.arange(schedule.num_steps + 1, dtype=jnp.float32))
    # Each at least 1 below the one before, and high enough for as many to follow.
    falling = lax.cummin(jnp.rint(nearest).astype(jnp.int32) + index) - index
    return jnp.maximum(falling, num_steps - index)


def reverse_step(
    schedule: Schedule,
    x_t: Images,
    mu: Images,
    noise_hat: Images,
    before: Images | None,
    step: Step,
    *,
    method: str,
    clip_x0: tuple[float, float] | None = None,
) -> tuple[Images, Float[Array, ""] | None, Images | None]:
    """One step of a sampler, pixel by pixel.

    Args:
        schedule: The noise schedule.
        x_t: States at `step.t`.
        mu: Degraded images.
        noise_hat: The noise that the network sees in them.
        before: Clean estimates of the step before ("dpm_solver" alone; anything at the first step).
        step: One step of `sampling_steps`.
        method: As in `sample`.
        clip_x0: As in `sample`.

    Returns:
        The mean of x_s; what its standard normal draw is multiplied by (None: no draw); the clean estimates
        ("dpm_solver" alone).
    """
    t, s, slope = step
    if method == "ode":
        return irsde.reverse_ode_mean(schedule, x_t, mu, noise_hat, t, s=s), None, None
    if method == "sde":
        # The published sampler subtracts its draw; the sign matters only when the draws are given.
        gap = (schedule.theta_cumsum[t] - schedule.theta_cumsum[s]) * schedule.dt
        spread = -schedule.max_sigma * jnp.sqrt(2 * gap)
        return irsde.reverse_sde_mean(schedule, x_t, mu, noise_hat, t, s=s), spread, None
    x0_hat = irsde.x0_from_noise(schedule, x_t, mu, noise_hat, t)
    if clip_x0 is not None:
        x0_hat = jnp.clip(x0_hat, *clip_x0)
    if method == "posterior":
        mean = irsde.posterior_mean(schedule, x_t, x0_hat, mu, t, s=s)
        return mean, irsde.posterior_std(schedule, t, s=s), None
    if method == "ddim":
        return irsde.implicit_step(schedule, x_t, x0_hat, mu, t, s=s), None, None
    assert before is not None
    ahead = x0_hat + slope * (x0_hat - before)
    return irsde.implicit_step(schedule, x_t, ahead, mu, t, s=s), None, x0_hat


def sample(
    key: PRNGKeyArray,
    noise_fn: NoiseFn,
    mu: Images,
    *,
    schedule: Schedule,
    method: str = "posterior",
    num_steps: int | None = None,
    clip_x0: tuple[float, float] | None = None,
    draws: States | None = None,
    return_trajectory: bool = False,
) -> Images | tuple[Images, States]:
    """Run the reverse process from noise around `mu` down to a clean image, as one `lax.scan` over its steps t -> s.

        posterior    x_s = posterior_mean(x_t, x0_hat) + posterior_std z,   x0_hat from the predicted noise
        sde          x_s = reverse_sde_mean - sigma_max sqrt(2 (Theta_t - Theta_s) dt) z
        ode          x_s = reverse_ode_mean
        ddim         x_s = implicit_step(x_t, x0_hat)
        dpm_solver   x_s = implicit_step(x_t, x0_hat + slope (x0_hat - x0_hat of the step before)), of second order

    Args:
        key: Random key; the start state uses `fold_in(key, 0)`, the step from t uses `fold_in(key, t)`, and each
            pixel its place: see `noise_field`.
        noise_fn: Predicts the noise of a state, `noise_fn(x_t, mu, t)` with `t` of shape `[b]`.
        mu: Degraded images, in [0, 1].
        schedule: The noise schedule the predictor was trained with.
        method: "posterior" (the published choice), "sde", "ode", "ddim" or "dpm_solver". With fewer steps than T the
            Euler steps of "sde" and "ode" go wrong first.
        num_steps: How many steps, 1 to T, which is the default; evenly spaced in Theta.
        clip_x0: `(low, high)`, in image units: the clean estimate is clipped to this range.
        draws: `[num_steps + 1, b, h, w, c]` standard normal draws used instead of `key`: the start state, then one per
            step.
        return_trajectory: Also return every state.

    Returns:
        The sample, not clipped; with `return_trajectory`, `(sample, states)`, states `[num_steps + 1, b, h, w, c]`
        from the start state to the sample.

    Raises:
        ValueError: An unknown method, `num_steps` out of range, `clip_x0` with "sde" or "ode" or with low >= high, or
            `draws` of the wrong length.

    Source: Luo et al., ICML 2023 ("sde", "ode") and CVPR Workshops 2023 ("posterior"); Song et al., "Denoising
    Diffusion Implicit Models", ICLR 2021; Lu et al., "DPM-Solver++", 2022 (its multistep 2M, for this process).
    `clip_x0` departs from the published code: an error of the predicted noise enters the clean estimate multiplied by
    exp(Theta_t dt), 200 at t = T, so that a little-trained network throws the estimate far out of the range of images,
    and the state with it. A well-trained one hardly notices; it is off by default.
    """
    steps = sampling_steps(schedule, method=method, num_steps=num_steps)
    check_clip(clip_x0, method)
    if draws is not None and draws.shape != (len(steps.t) + 1, *mu.shape):
        raise ValueError(f"draws: got shape {draws.shape}, expected {(len(steps.t) + 1, *mu.shape)}")

    def body(
        carry: tuple[Images, Images | None], row: tuple[Step, Images | None]
    ) -> tuple[tuple[Images, Images | None], Images | None]:
        (x_t, before), (step, noise) = carry, row
        noise_hat = noise_fn(x_t, mu, jnp.full(mu.shape[0], step.t))
        x_s, spread, estimate = reverse_step(schedule, x_t, mu, noise_hat, before, step, method=method, clip_x0=clip_x0)
        if spread is not None:
            x_s = x_s + spread * (noise_field(jax.random.fold_in(key, step.t), mu.shape) if noise is None else noise)
        return (x_s, estimate), x_s if return_trajectory else None

    draw = noise_field(jax.random.fold_in(key, 0), mu.shape) if draws is None else draws[0]
    start = irsde.start_state(schedule, mu, draw)
    rows = (steps, None if draws is None else draws[1:])
    (x0, _), states = lax.scan(body, (start, start if method == "dpm_solver" else None), rows)
    return x0 if states is None else (x0, jnp.concatenate([start[None], states]))


def check_clip(clip_x0: tuple[float, float] | None, method: str) -> None:
    """See that a method clips its clean estimate, and to a range.

    Raises:
        ValueError: It does not.
    """
    if clip_x0 is not None and method not in CLIPPING:
        raise ValueError(
            f"clip_x0: got {clip_x0} with method {method!r}, expected None: only {', '.join(CLIPPING)} clip"
        )
    if clip_x0 is not None and not clip_x0[0] < clip_x0[1]:
        raise ValueError(f"clip_x0: got {clip_x0}, expected (low, high) with low < high")
