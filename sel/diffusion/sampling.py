"""From a degraded image to a clean one: the reverse process, driven by a noise predictor."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sel.diffusion import irsde
from sel.diffusion.schedule import Schedule
from sel.types import NoiseFn

Images = Float[Array, "b h w c"]
States = Float[Array, "s b h w c"]

METHODS = ("posterior", "sde", "ode")


def sample(
    key: PRNGKeyArray,
    noise_fn: NoiseFn,
    mu: Images,
    *,
    schedule: Schedule,
    method: str = "posterior",
    clip_x0: tuple[float, float] | None = None,
    draws: States | None = None,
    return_trajectory: bool = False,
) -> Images | tuple[Images, States]:
    """Run the reverse process from noise around `mu` down to a clean image, as one `lax.scan` over t = T..1.

        posterior   x_{t-1} = x_{t-1}*(x_t, x0_hat) + posterior_std_t z,   x0_hat from the predicted noise
        sde         x_{t-1} = reverse_sde_mean - sigma_t sqrt(dt) z
        ode         x_{t-1} = reverse_ode_mean

    Args:
        key: Random key; the start state uses `fold_in(key, 0)`, step t uses `fold_in(key, t)`.
        noise_fn: Predicts the noise of a state, `noise_fn(x_t, mu, t)` with `t` of shape `[b]`.
        mu: Degraded images, in [0, 1].
        schedule: The noise schedule the predictor was trained with.
        method: "posterior" (the published choice), "sde" or "ode".
        clip_x0: `(low, high)`, in image units: the posterior sampler clips its clean estimate to this range.
        draws: `[T + 1, b, h, w, c]` standard normal draws used instead of `key`: the start state, then one per step.
        return_trajectory: Also return every state.

    Returns:
        The sample, not clipped; with `return_trajectory`, `(sample, states)`, states `[T + 1, b, h, w, c]` from the
        start state to the sample.

    Raises:
        ValueError: An unknown method, `clip_x0` with another method than "posterior" or with low >= high, or `draws`
            of the wrong length.

    Source: Luo et al., ICML 2023 ("sde", "ode") and CVPR Workshops 2023 ("posterior"). `clip_x0` departs from the
    published code: an error of the predicted noise enters the clean estimate multiplied by exp(Theta_t dt), 200 at
    t = T, so that a little-trained network throws the estimate far out of the range of images, and the state with it.
    A well-trained one hardly notices; it is off by default.
    """
    _check(schedule, mu, method, clip_x0, draws)

    def draw(t: Int[Array, ""] | int) -> Images:
        return jax.random.normal(jax.random.fold_in(key, t), mu.shape, jnp.float32)

    def body(x_t: Images, step: tuple[Int[Array, ""], Images | None]) -> tuple[Images, Images | None]:
        t, noise = step
        noise_hat = noise_fn(x_t, mu, jnp.full(mu.shape[0], t))
        mean, spread = _reverse_step(schedule, x_t, mu, noise_hat, t, method, clip_x0)
        x_t = mean if spread is None else mean + spread * (draw(t) if noise is None else noise)
        return x_t, x_t if return_trajectory else None

    start = irsde.start_state(schedule, mu, draw(0) if draws is None else draws[0])
    times = jnp.arange(schedule.num_steps, 0, -1)
    x0, states = jax.lax.scan(body, start, (times, None if draws is None else draws[1:]))
    return x0 if states is None else (x0, jnp.concatenate([start[None], states]))


def _reverse_step(
    schedule: Schedule,
    x_t: Images,
    mu: Images,
    noise_hat: Images,
    t: Int[Array, ""],
    method: str,
    clip_x0: tuple[float, float] | None,
) -> tuple[Images, Float[Array, ""] | None]:
    """Mean of x_{t-1} and what its draw is multiplied by (None: no draw)."""
    if method == "ode":
        return irsde.reverse_ode_mean(schedule, x_t, mu, noise_hat, t), None
    if method == "sde":
        # The published sampler subtracts its draw; the sign matters only when the draws are given.
        spread = -schedule.sigma[t] * jnp.sqrt(schedule.dt)
        return irsde.reverse_sde_mean(schedule, x_t, mu, noise_hat, t), spread
    x0_hat = irsde.x0_from_noise(schedule, x_t, mu, noise_hat, t)
    if clip_x0 is not None:
        x0_hat = jnp.clip(x0_hat, *clip_x0)
    return irsde.posterior_mean(schedule, x_t, x0_hat, mu, t), irsde.posterior_std(schedule, t)


def _check(
    schedule: Schedule, mu: Images, method: str, clip_x0: tuple[float, float] | None, draws: Array | None
) -> None:
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    if clip_x0 is not None and method != "posterior":
        raise ValueError(f"clip_x0: got {clip_x0} with method {method!r}, expected None: only 'posterior' clips")
    if clip_x0 is not None and not clip_x0[0] < clip_x0[1]:
        raise ValueError(f"clip_x0: got {clip_x0}, expected (low, high) with low < high")
    expected = (schedule.num_steps + 1, *mu.shape)
    if draws is not None and draws.shape != expected:
        raise ValueError(f"draws: got shape {draws.shape}, expected {expected}")
