"""The mean-reverting diffusion (IR-SDE) as pure functions of a schedule: marginals, reverse steps, optimum.

    dx = theta_t (mu - x) dt + sigma_t dw,   t = 1..T,   x_T = mu + noise

takes the clean image x0 to the degraded image mu. Images are floating point, channels last, in [0, 1] (noisy states
leave that range), any size. The time `t` is one integer, or one per image; it lies in 1..T, which a traced value cannot
be checked for: the score and the clean estimate do not exist at t = 0. Below, as in the paper,

    A = exp(-theta_t dt),   B = exp(-Theta_t dt),   C = exp(-Theta_{t-1} dt).

Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023; the spread of
the optimum, Luo et al., "Refusion", CVPR Workshops 2023. Every 1 - exp(-a) is written -expm1(-a): near t = 1 the plain
difference loses most of its float32 digits.
"""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from sel.diffusion.schedule import Schedule

Images = Float[Array, "b h w c"]
Time = Int[ArrayLike, ""] | Int[ArrayLike, " b"]
PerTime = Float[Array, ""] | Float[Array, " b"]


def marginal_mean(schedule: Schedule, x0: Images, mu: Images, t: Time) -> Images:
    """Mean of x_t given x0.

        m_t = mu + (x0 - mu) exp(-Theta_t dt)

    Args:
        schedule: The noise schedule.
        x0: Clean images.
        mu: Degraded images.
        t: Time steps, 0..T here.

    Returns:
        The means, in image units.
    """
    return mu + (x0 - mu) * _per_image(jnp.exp(-schedule.theta_cumsum[t] * schedule.dt))


def marginal_sample(schedule: Schedule, x0: Images, mu: Images, noise: Images, t: Time) -> Images:
    """Draw x_t given x0.

        x_t = m_t + sigma_bar_t noise

    Args:
        schedule: The noise schedule.
        x0: Clean images.
        mu: Degraded images.
        noise: Standard normal draws.
        t: Time steps, 0..T here.

    Returns:
        Noisy states, in image units.
    """
    return marginal_mean(schedule, x0, mu, t) + _per_image(schedule.sigma_bar[t]) * noise


def score_from_noise(schedule: Schedule, noise_hat: Images, t: Time) -> Images:
    """Gradient of log p(x_t) that belongs to predicted noise.

        score = -noise_hat / sigma_bar_t

    Args:
        schedule: The noise schedule.
        noise_hat: Predicted noise, in standard deviations.
        t: Time steps.

    Returns:
        The score, per image unit.
    """
    return -noise_hat / _per_image(schedule.sigma_bar[t])


def reverse_sde_mean(schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time) -> Images:
    """One Euler step of the reverse-time SDE without its random part: the mean of x_{t-1}.

        x_t - (theta_t (mu - x_t) - sigma_t^2 score) dt

    Even with the true noise this differs from `posterior_mean`, by the error of the Euler step.

    Args:
        schedule: The noise schedule.
        x_t: Noisy states.
        mu: Degraded images.
        noise_hat: Predicted noise, in standard deviations.
        t: Time steps.

    Returns:
        Means of x_{t-1}, in image units.
    """
    return _euler_step(schedule, x_t, mu, noise_hat, t, score_weight=1.0)


def reverse_ode_mean(schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time) -> Images:
    """One Euler step of the probability-flow ODE, which has the marginals of the SDE and no random part.

        x_t - (theta_t (mu - x_t) - sigma_t^2 score / 2) dt

    Args:
        schedule: The noise schedule.
        x_t: Noisy states.
        mu: Degraded images.
        noise_hat: Predicted noise, in standard deviations.
        t: Time steps.

    Returns:
        x_{t-1}, in image units.
    """
    return _euler_step(schedule, x_t, mu, noise_hat, t, score_weight=0.5)


def posterior_mean(schedule: Schedule, x_t: Images, x0: Images, mu: Images, t: Time) -> Images:
    """Mean of x_{t-1} given x_t and x0: the optimum x_{t-1}* that a reverse step should reach.

        A (1 - C^2) / (1 - B^2) (x_t - mu) + C (1 - A^2) / (1 - B^2) (x0 - mu) + mu

    At t = 1 it is x0.

    Args:
        schedule: The noise schedule.
        x_t: Noisy states.
        x0: Clean images.
        mu: Degraded images.
        t: Time steps.

    Returns:
        Means of x_{t-1}, in image units.
    """
    theta_dt, before_dt, now_dt = _exponents(schedule, t)
    scale = -1 / jnp.expm1(-2 * now_dt)
    from_state = -jnp.exp(-theta_dt) * jnp.expm1(-2 * before_dt) * scale
    from_clean = -jnp.exp(-before_dt) * jnp.expm1(-2 * theta_dt) * scale
    return _per_image(from_state) * (x_t - mu) + _per_image(from_clean) * (x0 - mu) + mu


def posterior_std(schedule: Schedule, t: Time) -> PerTime:
    """Standard deviation of x_{t-1} given x_t and x0.

        sigma_max sqrt((1 - A^2) (1 - C^2) / (1 - B^2))

    Args:
        schedule: The noise schedule.
        t: Time steps.

    Returns:
        The standard deviations, in image units; 0 at t = 1. The published code keeps 1e-11 there.
    """
    theta_dt, before_dt, now_dt = _exponents(schedule, t)
    variance = -jnp.expm1(-2 * theta_dt) * jnp.expm1(-2 * before_dt) / jnp.expm1(-2 * now_dt)
    return schedule.max_sigma * jnp.sqrt(variance)


def x0_from_noise(schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time) -> Images:
    """Clean images that belong to predicted noise.

        (x_t - mu - sigma_bar_t noise_hat) exp(Theta_t dt) + mu

    An error in the noise grows by exp(Theta_t dt), which is 1/eps (200 by default) at t = T.

    Args:
        schedule: The noise schedule.
        x_t: Noisy states.
        mu: Degraded images.
        noise_hat: Predicted noise, in standard deviations.
        t: Time steps.

    Returns:
        Clean estimates, in image units.
    """
    residual = x_t - mu - _per_image(schedule.sigma_bar[t]) * noise_hat
    return residual * _per_image(jnp.exp(schedule.theta_cumsum[t] * schedule.dt)) + mu


def start_state(schedule: Schedule, mu: Images, noise: Images) -> Images:
    """Where sampling starts: the state in which the process has come to rest.

        x_T = mu + sigma_max noise

    Args:
        schedule: The noise schedule.
        mu: Degraded images.
        noise: Standard normal draws.

    Returns:
        Start states, in image units.
    """
    return mu + schedule.max_sigma * noise


def _euler_step(schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, t: Time, score_weight: float) -> Images:
    score = score_from_noise(schedule, noise_hat, t)
    drift = _per_image(schedule.theta[t]) * (mu - x_t) - score_weight * _per_image(schedule.sigma[t] ** 2) * score
    return x_t - drift * schedule.dt


def _exponents(schedule: Schedule, t: Time) -> tuple[PerTime, PerTime, PerTime]:
    """theta_t dt, Theta_{t-1} dt and Theta_t dt."""
    t = jnp.asarray(t)
    return (
        schedule.theta[t] * schedule.dt,
        schedule.theta_cumsum[t - 1] * schedule.dt,
        schedule.theta_cumsum[t] * schedule.dt,
    )


def _per_image(values: PerTime) -> Float[Array, "#b 1 1 1"]:
    return lax.expand_dims(values, range(values.ndim, 4))
