"""From a degraded image to a clean one: the reverse process, driven by a noise predictor."""

from functools import partial
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from sel.diffusion import irsde
from sel.diffusion.checks import as_count, as_key, check_images, check_prediction
from sel.diffusion.noise import noise_field
from sel.diffusion.samplers import Sampler, State, Times, make_sampler
from sel.diffusion.schedule import Schedule
from sel.types import NoiseFn

Images = Float[Array, "b h w c"]
States = Float[Array, "s b h w c"]


def sampling_times(schedule: Schedule, *, num_steps: SupportsIndex | None = None) -> Times:
    """The steps that lead from T to 0, evenly spaced in Theta: the clean image fades in by equal factors.

        Theta_{t_i} ~ (1 - i / num_steps) Theta_T

    rounded to times of which no two are equal.

    Args:
      schedule: the noise schedule.
      num_steps: from 1 to T, which is the default.

    Returns:
      One row for each step, in the order of the steps.

    Raises:
      ValueError: if `num_steps` is out of range.

    Examples:
      >>> from sel.diffusion import make_schedule, sampling_times
      >>> times = sampling_times(make_schedule(), num_steps=4)
      >>> int(times.t[0]), int(times.s[-1]), len(times.t)
      (100, 0, 4)
    """
    if num_steps is None:
        return _times(schedule, schedule.num_steps)
    why = ", the steps of the diffusion that the network was trained with"
    return _times(schedule, as_count("num_steps", num_steps, schedule.num_steps, why=why))


@partial(jax.jit, static_argnames="num_steps")
def _times(schedule: Schedule, num_steps: int) -> Times:
    """As one program: operation by operation, compiling them would take half a second."""
    index = jnp.arange(num_steps + 1, dtype=jnp.int32)
    wanted = (num_steps - index) / num_steps * schedule.theta_cumsum[-1]
    nearest = jnp.interp(wanted, schedule.theta_cumsum, jnp.arange(schedule.num_steps + 1, dtype=jnp.float32))
    # Each at least 1 below the one before, and high enough for as many to follow.
    falling = lax.cummin(jnp.rint(nearest).astype(jnp.int32) + index) - index
    times = jnp.maximum(falling, num_steps - index)
    return Times(times[:-1], times[1:], jnp.concatenate([times[:1], times[:-2]]))


def sample(
    key: PRNGKeyArray,
    noise_fn: NoiseFn,
    mu: Images,
    *,
    schedule: Schedule,
    sampler: Sampler | str = "posterior",
    num_steps: SupportsIndex | None = None,
    draws: States | None = None,
    return_trajectory: bool = False,
) -> Images | tuple[Images, States]:
    """Run the reverse process from noise around `mu` down to a clean image, as one `lax.scan` over its steps t -> s.

    Args:
      key: random key, of `jax.random.key` or `jax.random.PRNGKey`; the start state uses `fold_in(key, 0)`, the step
        from t uses `fold_in(key, t)`, and each pixel its place: see `noise_field`.
      noise_fn: predicts the noise of a state, `noise_fn(x_t, mu, t)` with `t` of shape `[b]`.
      mu: degraded images, in [0, 1].
      schedule: the noise schedule the predictor was trained with.
      sampler: how to take a step, such as `Posterior(clip_x0=(0, 1))`; or the name of one in `SAMPLERS`, for its
        defaults. The published choice is "posterior".
      num_steps: how many steps, 1 to T, which is the default; evenly spaced in Theta.
      draws: `[num_steps + 1, b, h, w, c]` standard normal draws used instead of `key`: the start state, then one per
        step.
      return_trajectory: also return every state.

    Returns:
      The sample, not clipped; with `return_trajectory`, `(sample, states)`, states `[num_steps + 1, b, h, w, c]`
      from the start state to the sample.

    Raises:
      ValueError: for an unknown sampler, `num_steps` out of range, `draws` or predicted noise of the wrong shape, or
        a `mu` that is not a batch of floating-point images.

    Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023; each
    sampler names its own.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, marginal_mean, sample
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> def noise_fn(x_t, mu, t):  # knows the clean image; a network has to predict this
      ...     return (x_t - marginal_mean(schedule, x0, mu, t)) / schedule.sigma_bar[t][:, None, None, None]
      >>> result = sample(jax.random.key(0), noise_fn, mu, schedule=schedule, num_steps=4)
      >>> bool(jnp.allclose(result, x0, atol=1e-4))
      True
    """
    check_images(mu=mu)
    key, sampler, steps = as_key(key), make_sampler(sampler), sampling_times(schedule, num_steps=num_steps)
    if draws is not None and draws.shape != (len(steps.t) + 1, *mu.shape):
        raise ValueError(f"draws must have the shape {(len(steps.t) + 1, *mu.shape)}, found {draws.shape}")

    def body(carry: tuple[Images, State], row: tuple[Times, Images | None]) -> tuple[Any, Images | None]:
        (x_t, state), (times, noise) = carry, row
        noise_hat = check_prediction(noise_fn(x_t, mu, jnp.full(mu.shape[0], times.t)), x_t)
        x_s, spread, state = sampler.step(schedule, x_t, mu, noise_hat, state, times)
        if spread is not None:
            x_s = x_s + spread * (noise_field(jax.random.fold_in(key, times.t), mu.shape) if noise is None else noise)
        return (x_s, state), x_s if return_trajectory else None

    draw = noise_field(jax.random.fold_in(key, 0), mu.shape) if draws is None else draws[0]
    x_t = irsde.start_state(schedule, mu, draw)
    rows = (steps, None if draws is None else draws[1:])
    (x0, _), states = lax.scan(body, (x_t, sampler.start(x_t)), rows)
    return x0 if states is None else (x0, jnp.concatenate([x_t[None], states]))
