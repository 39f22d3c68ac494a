"""Which images a loss compares: what follows from the predicted noise, and what should follow."""

import abc
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sel import diffusion
from sel.choices import check, setting
from sel.diffusion import Schedule

Images = Float[Array, "b h w c"]


class Compared(abc.ABC):
    """Which image is compared. To add one, derive from this class and enter it in `COMPARED`."""

    @abc.abstractmethod
    def images(
        self, schedule: Schedule, x_t: Images, x0: Images, mu: Images, noise_hat: Images, t: Int[Array, " b"]
    ) -> tuple[Images, Images]:
        """What follows from the predicted noise, and what should follow."""

    @abc.abstractmethod
    def slopes(self, schedule: Schedule) -> Float[Array, " t"]:
        """What an error of the predicted noise is multiplied by in that image, at t = 1..T."""


@dataclass(frozen=True)
class XPrev(Compared):
    """One reverse step against the best one, as published.

        x_t - (theta_t (mu - x_t) - sigma_t^2 score) dt   against   x_{t-1}*;   slope sigma_t^2 dt / sigma_bar_t

    With the true noise the Euler step still misses the optimum by up to 0.75/255, so that no loss of it is 0.

    Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023 (the
    optimum); Lian et al., arXiv 2404.09735 (its use with an entropy).
    """

    def images(
        self, schedule: Schedule, x_t: Images, x0: Images, mu: Images, noise_hat: Images, t: Int[Array, " b"]
    ) -> tuple[Images, Images]:
        """As `Compared`."""
        prediction = diffusion.reverse_sde_mean(schedule, x_t, mu, noise_hat, t)
        return prediction, diffusion.posterior_mean(schedule, x_t, x0, mu, t)

    def slopes(self, schedule: Schedule) -> Float[Array, " t"]:
        """As `Compared`."""
        return schedule.sigma[1:] ** 2 * schedule.dt / schedule.sigma_bar[1:]


@dataclass(frozen=True)
class X0(Compared):
    """The predicted clean image against the true one.

        (x_t - mu - sigma_bar_t noise_hat) exp(Theta_t dt) + mu   against   x0;   slope sigma_bar_t exp(Theta_t dt)

    An error of the noise is multiplied by up to sigma_bar_T / eps, 39 by default. The gradient of the clipping lets
    values outside come back.
    """

    clip_x0: tuple[float, float] | None = setting(
        (0.0, 1.0), earlier=None, doc="range to which the predicted clean image is clipped; None: it is not"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.clip_x0 is not None and not self.clip_x0[0] < self.clip_x0[1]:
            raise ValueError(f"clip_x0 must be (low, high) with low < high, or None, found {self.clip_x0!r}")

    def images(
        self, schedule: Schedule, x_t: Images, x0: Images, mu: Images, noise_hat: Images, t: Int[Array, " b"]
    ) -> tuple[Images, Images]:
        """As `Compared`."""
        prediction = diffusion.x0_from_noise(schedule, x_t, mu, noise_hat, t)
        return prediction if self.clip_x0 is None else clip_from_outside(prediction, *self.clip_x0), x0

    def slopes(self, schedule: Schedule) -> Float[Array, " t"]:
        """As `Compared`: 1 / snr_t."""
        return schedule.sigma_bar[1:] / jnp.exp(-schedule.theta_cumsum[1:] * schedule.dt)


COMPARED: dict[str, type[Compared]] = {"x_prev": XPrev, "x0": X0}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def clip_from_outside(x: Array, low: float, high: float) -> Array:
    """`clip(x, low, high)` whose gradient, outside the range, is kept where following it leads back inside.

    Examples:
      >>> import jax
      >>> from sel.objective import clip_from_outside
      >>> float(clip_from_outside(jax.numpy.float32(1.5), 0.0, 1.0))
      1.0
      >>> towards_0 = jax.grad(lambda x: clip_from_outside(x, 0.0, 1.0) ** 2)
      >>> [float(towards_0(jax.numpy.float32(x))) for x in (1.5, -0.5)]
      [2.0, 0.0]
    """
    return jnp.clip(x, low, high)


def _clip_forward(x: Array, low: float, high: float) -> tuple[Array, Array]:
    return jnp.clip(x, low, high), x


def _clip_backward(low: float, high: float, x: Array, slope: Array) -> tuple[Array]:
    leaves = ((x > high) & (slope < 0)) | ((x < low) & (slope > 0))  # descent subtracts the slope
    return (jnp.where(leaves, 0, slope),)


clip_from_outside.defvjp(_clip_forward, _clip_backward)
