"""The mean-reverting diffusion (IR-SDE) as pure functions of a schedule: marginals, reverse steps, optimum.

    dx = theta_t (mu - x) dt + sigma_t dw,   t = 1..T,   x_T = mu + noise

takes the clean image x0 to the degraded image mu. Images are floating point, channels last, in [0, 1] (noisy states
leave that range), any size. The time `t` is one integer, or one per image; it lies in 1..T: the score and the clean
estimate do not exist at t = 0. Other times, and images of different shapes, are a ValueError; inside a compiled
program times have no values yet and are not looked at. Below, as in the paper,

    A = exp(-(Theta_t - Theta_s) dt),   B = exp(-Theta_t dt),   C = exp(-Theta_s dt),

where s < t is the time that a reverse step leads to: t - 1 unless it is given, in 0..t - 1. The reverse steps are exact
for any s, except for the Euler steps of the SDE and the ODE.

Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023; the spread of
the optimum, Luo et al., "Refusion", CVPR Workshops 2023. Every 1 - exp(-a) is written -expm1(-a): near t = 1 the plain
difference loses most of its float32 digits.
"""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from sel.diffusion.checks import check_images, check_time
from sel.diffusion.schedule import Schedule

Images = Float[Array, "b h w c"]
Time = Int[ArrayLike, ""] | Int[ArrayLike, " b"]
PerTime = Float[Array, ""] | Float[Array, " b"]


def marginal_mean(schedule: Schedule, x0: Images, mu: Images, t: Time) -> Images:
    """Mean of x_t given x0.

        m_t = mu + (x0 - mu) exp(-Theta_t dt)

    Args:
      schedule: the noise schedule.
      x0: clean images.
      mu: degraded images.
      t: time steps, 0..T here.

    Returns:
      The means, in image units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, marginal_mean
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> [round(float(marginal_mean(schedule, x0, mu, t)[0, 0, 0, 0]), 4) for t in (0, 100)]  # from x0 to almost mu
      [0.75, 0.2525]
    """
    _check(schedule, t, low=0, x0=x0, mu=mu)
    return mu + (x0 - mu) * _per_image(jnp.exp(-schedule.theta_cumsum[t] * schedule.dt))


def marginal_sample(schedule: Schedule, x0: Images, mu: Images, noise: Images, t: Time) -> Images:
    """Draw x_t given x0.

        x_t = m_t + sigma_bar_t noise

    Args:
      schedule: the noise schedule.
      x0: clean images.
      mu: degraded images.
      noise: standard normal draws.
      t: time steps, 0..T here.

    Returns:
      Noisy states, in image units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, marginal_sample
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> x_t = marginal_sample(schedule, x0, mu, jnp.ones_like(x0), jnp.array([100]))
      >>> round(float(x_t[0, 0, 0, 0]), 4)  # 0.2525 and one standard deviation, 50 / 255
      0.4486
    """
    check_images(mu=mu, noise=noise)
    return marginal_mean(schedule, x0, mu, t) + _per_image(schedule.sigma_bar[t]) * noise


def score_from_noise(schedule: Schedule, noise_hat: Images, t: Time) -> Images:
    """Gradient of log p(x_t) that belongs to predicted noise.

        score = -noise_hat / sigma_bar_t

    Args:
      schedule: the noise schedule.
      noise_hat: predicted noise, in standard deviations.
      t: time steps.

    Returns:
      The score, per image unit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, score_from_noise
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> score = score_from_noise(schedule, jnp.ones_like(x0), 100)
      >>> round(float(score[0, 0, 0, 0]), 4)  # -255 / 50
      -5.1001
    """
    _check(schedule, t, noise_hat=noise_hat)
    return -noise_hat / _per_image(schedule.sigma_bar[t])


def reverse_sde_mean(
    schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time, *, s: Time | None = None
) -> Images:
    """One Euler step of the reverse-time SDE without its random part: the mean of x_s.

        x_t - (Theta_t - Theta_s) dt ((mu - x_t) - 2 sigma_max^2 score)

    Even with the true noise this differs from `posterior_mean`, by the error of the Euler step.

    Args:
      schedule: the noise schedule.
      x_t: noisy states.
      mu: degraded images.
      noise_hat: predicted noise, in standard deviations.
      t: time steps.
      s: earlier time steps.

    Returns:
      Means of x_s, in image units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, reverse_sde_mean
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> mean = reverse_sde_mean(schedule, mu, mu, jnp.zeros_like(mu), 50)
      >>> bool(jnp.allclose(mean, mu))  # at rest, without noise, there is nowhere to go
      True
    """
    return _euler_step(schedule, x_t, mu, noise_hat, t, s, score_weight=2.0)


def reverse_ode_mean(
    schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time, *, s: Time | None = None
) -> Images:
    """One Euler step of the probability-flow ODE, which has the marginals of the SDE and no random part.

        x_t - (Theta_t - Theta_s) dt ((mu - x_t) - sigma_max^2 score)

    Args:
      schedule: the noise schedule.
      x_t: noisy states.
      mu: degraded images.
      noise_hat: predicted noise, in standard deviations.
      t: time steps.
      s: earlier time steps.

    Returns:
      x_s, in image units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, reverse_ode_mean
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> x_s = reverse_ode_mean(schedule, mu, mu, jnp.zeros_like(mu), 50, s=40)
      >>> bool(jnp.allclose(x_s, mu))
      True
    """
    return _euler_step(schedule, x_t, mu, noise_hat, t, s, score_weight=1.0)


def posterior_mean(
    schedule: Schedule, x_t: Images, x0: Images, mu: Images, t: Time, *, s: Time | None = None
) -> Images:
    """Mean of x_s given x_t and x0; for s = t - 1 the optimum x_{t-1}* that a reverse step should reach.

        A (1 - C^2) / (1 - B^2) (x_t - mu) + C (1 - A^2) / (1 - B^2) (x0 - mu) + mu

    At s = 0 it is x0.

    Args:
      schedule: the noise schedule.
      x_t: noisy states.
      x0: clean images.
      mu: degraded images.
      t: time steps.
      s: earlier time steps.

    Returns:
      Means of x_s, in image units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, posterior_mean
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> bool(jnp.allclose(posterior_mean(schedule, mu, x0, mu, 50, s=0), x0, atol=1e-6))
      True
    """
    _check(schedule, t, s, x_t=x_t, x0=x0, mu=mu)
    between, after, now = _exponents(schedule, t, s)
    scale = -1 / jnp.expm1(-2 * now)
    from_state = -jnp.exp(-between) * jnp.expm1(-2 * after) * scale
    from_clean = -jnp.exp(-after) * jnp.expm1(-2 * between) * scale
    return _per_image(from_state) * (x_t - mu) + _per_image(from_clean) * (x0 - mu) + mu


def posterior_std(schedule: Schedule, t: Time, *, s: Time | None = None) -> PerTime:
    """Standard deviation of x_s given x_t and x0.

        sigma_max sqrt((1 - A^2) (1 - C^2) / (1 - B^2))

    Args:
      schedule: the noise schedule.
      t: time steps.
      s: earlier time steps.

    Returns:
      The standard deviations, in image units; 0 at s = 0. The published code keeps 1e-11 there.

    Examples:
      >>> from sel.diffusion import make_schedule, posterior_std
      >>> schedule = make_schedule()
      >>> float(posterior_std(schedule, 1)), bool(posterior_std(schedule, 50) > 0)
      (0.0, True)
    """
    _check(schedule, t, s)
    between, after, now = _exponents(schedule, t, s)
    variance = -jnp.expm1(-2 * between) * jnp.expm1(-2 * after) / jnp.expm1(-2 * now)
    return schedule.max_sigma * jnp.sqrt(variance)


def implicit_step(schedule: Schedule, x_t: Images, x0: Images, mu: Images, t: Time, *, s: Time | None = None) -> Images:
    """The x_s that has the noise of x_t: a step without a random part that keeps the marginals (DDIM).

        mu + C (x0 - mu) + sigma_bar_s / sigma_bar_t (x_t - m_t)

    It solves the probability-flow ODE exactly where x0 does not change between s and t. At s = 0 it is x0.

    Args:
      schedule: the noise schedule.
      x_t: noisy states.
      x0: clean images.
      mu: degraded images.
      t: time steps.
      s: earlier time steps.

    Returns:
      x_s, in image units.

    Source: Song et al., "Denoising Diffusion Implicit Models", ICLR 2021, for this process.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, implicit_step
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> bool(jnp.allclose(implicit_step(schedule, mu, x0, mu, 50, s=0), x0, atol=1e-6))
      True
    """
    _check(schedule, t, s, x_t=x_t, x0=x0, mu=mu)
    s = jnp.asarray(t) - 1 if s is None else s
    noise = x_t - marginal_mean(schedule, x0, mu, t)
    return marginal_mean(schedule, x0, mu, s) + _per_image(schedule.sigma_bar[s] / schedule.sigma_bar[t]) * noise


def x0_from_noise(schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time) -> Images:
    """Clean images that belong to predicted noise.

        (x_t - mu - sigma_bar_t noise_hat) exp(Theta_t dt) + mu

    An error in the noise grows by exp(Theta_t dt), which is 1/eps (200 by default) at t = T.

    Args:
      schedule: the noise schedule.
      x_t: noisy states.
      mu: degraded images.
      noise_hat: predicted noise, in standard deviations.
      t: time steps.

    Returns:
      Clean estimates, in image units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, x0_from_noise
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> x_t = mu + (x0 - mu) * jnp.exp(-schedule.theta_cumsum[50] * schedule.dt)  # a state without noise
      >>> bool(jnp.allclose(x0_from_noise(schedule, x_t, mu, jnp.zeros_like(mu), 50), x0, atol=1e-5))
      True
    """
    _check(schedule, t, x_t=x_t, mu=mu, noise_hat=noise_hat)
    residual = x_t - mu - _per_image(schedule.sigma_bar[t]) * noise_hat
    return residual * _per_image(jnp.exp(schedule.theta_cumsum[t] * schedule.dt)) + mu


def start_state(schedule: Schedule, mu: Images, noise: Images) -> Images:
    """Where sampling starts: the state in which the process has come to rest.

        x_T = mu + sigma_max noise

    Args:
      schedule: the noise schedule.
      mu: degraded images.
      noise: standard normal draws.

    Returns:
      Start states, in image units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.diffusion import make_schedule, start_state
      >>> schedule = make_schedule()
      >>> x0, mu = jnp.full((1, 8, 8, 3), 0.75), jnp.full((1, 8, 8, 3), 0.25)
      >>> round(float(start_state(schedule, mu, jnp.ones_like(mu))[0, 0, 0, 0]), 4)  # 0.25 + 50 / 255
      0.4461
    """
    check_images(mu=mu, noise=noise)
    return mu + schedule.max_sigma * noise


def _euler_step(
    schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time, s: Time | None, score_weight: float
) -> Images:
    _check(schedule, t, s, x_t=x_t, mu=mu, noise_hat=noise_hat)
    score = score_from_noise(schedule, noise_hat, t)
    drift = mu - x_t - score_weight * schedule.max_sigma**2 * score
    return x_t - _per_image(_exponents(schedule, t, s)[0]) * drift


def _check(schedule: Schedule, t: Time, s: Time | None = None, *, low: int = 1, **images: Images) -> None:
    check_time("t", t, low, schedule.num_steps)
    if s is not None:
        check_time("s", s, 0, jnp.asarray(t) - 1)
    if images:
        check_images(**images)


def _exponents(schedule: Schedule, t: Time, s: Time | None) -> tuple[PerTime, PerTime, PerTime]:
    """(Theta_t - Theta_s) dt, Theta_s dt and Theta_t dt."""
    t = jnp.asarray(t)
    now, after = schedule.theta_cumsum[t], schedule.theta_cumsum[t - 1 if s is None else jnp.asarray(s)]
    return (now - after) * schedule.dt, after * schedule.dt, now * schedule.dt


def _per_image(values: PerTime) -> Float[Array, "#b 1 1 1"]:
    return lax.expand_dims(values, range(values.ndim, 4))
