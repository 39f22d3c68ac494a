"""The samplers: one object for each way to take a step of the reverse process. `SAMPLERS` is where they have names."""

import abc
import dataclasses
import numbers
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sel.choices import setting
from sel.diffusion import irsde
from sel.diffusion.schedule import Schedule

Images = Float[Array, "b h w c"]
# A pytree of arrays shaped like the images, or None.
State = Any


class Times(NamedTuple):
    """When one step takes place, or one row for each step.

    Attributes:
      t: where the step begins, 1..T.
      s: where it ends, 0..t - 1.
      before: where the step before it began; t itself at the first step.
    """

    t: Int[Array, "*n"]
    s: Int[Array, "*n"]
    before: Int[Array, "*n"]


class Transition(NamedTuple):
    """What a step leads to: x_s = mean + spread z, with standard normal z.

    Attributes:
      mean: the mean of x_s, in image units.
      spread: what the draw is multiplied by, in image units; None: there is no draw.
      state: what the sampler remembers for its next step.
    """

    mean: Images
    spread: Float[Array, ""] | None
    state: State


@dataclasses.dataclass(frozen=True)
class Sampler(abc.ABC):
    """How the reverse process gets from x_t to an earlier x_s.

    A sampler is a frozen dataclass whose fields are its options. It works pixel by pixel: `sel.restoration` takes a
    step of a large image part by part. To add one, derive from this class and enter it in `SAMPLERS`.

    Attributes:
      few_steps: number of steps that is enough, whatever T is; None: all T are needed.
    """

    few_steps: ClassVar[int | None] = 16

    def start(self, x_t: Images) -> State:
        """What the sampler remembers before its first step: arrays shaped like the start state `x_t`, or None."""
        return None

    @abc.abstractmethod
    def step(
        self, schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, state: State, times: Times
    ) -> Transition:
        """Take one step.

        Args:
          schedule: the noise schedule.
          x_t: states at `times.t`.
          mu: degraded images.
          noise_hat: the noise that the network predicts for them, in standard deviations.
          state: what the step before returned, or `start`.
          times: when the step takes place.

        Returns:
          The law of x_s, and the state for the next step.
        """


@dataclasses.dataclass(frozen=True)
class X0Sampler(Sampler):
    """A sampler that first estimates the clean image, and can hence clip it.

    Attributes:
      clip_x0: `(low, high)`, in image units: the range to which the estimate is clipped; None: it is not.

    Raises:
      ValueError: if `clip_x0` is not two numbers with low < high.

    `clip_x0` departs from the published code: an error of the predicted noise enters the clean estimate multiplied by
    exp(Theta_t dt), 200 at t = T, so that a little-trained network throws the estimate far out of the range of images,
    and the state with it. A well-trained one hardly notices; it is off by default.
    """

    clip_x0: tuple[float | int, float | int] | None = setting(
        None,
        rule="(low, high), two numbers with low < high, or None",
        doc="range to which the estimate of the clean image is clipped, in image units; None: it is not",
    )

    def __post_init__(self) -> None:
        if self.clip_x0 is not None:
            object.__setattr__(self, "clip_x0", as_range("clip_x0", self.clip_x0))

    def estimate(self, schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, times: Times) -> Images:
        """The clean images that belong to the predicted noise, clipped."""
        x0_hat = irsde.x0_from_noise(schedule, x_t, mu, noise_hat, times.t)
        return x0_hat if self.clip_x0 is None else jnp.clip(x0_hat, *self.clip_x0)


@dataclasses.dataclass(frozen=True)
class Posterior(X0Sampler):
    """Draws x_s given x_t and the clean estimate: the published choice.

        x_s = posterior_mean(x_t, x0_hat) + posterior_std z

    Source: Luo et al., "Refusion", CVPR Workshops 2023.
    """

    def step(
        self, schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, state: State, times: Times
    ) -> Transition:
        """Draw x_s around what the clean estimate makes of x_t."""
        x0_hat = self.estimate(schedule, x_t, mu, noise_hat, times)
        mean = irsde.posterior_mean(schedule, x_t, x0_hat, mu, times.t, s=times.s)
        return Transition(mean, irsde.posterior_std(schedule, times.t, s=times.s), None)


@dataclasses.dataclass(frozen=True)
class Ddim(X0Sampler):
    """Keeps the noise of x_t: `Posterior` without its random part.

        x_s = implicit_step(x_t, x0_hat)

    Source: Song et al., "Denoising Diffusion Implicit Models", ICLR 2021, for this process.
    """

    def step(
        self, schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, state: State, times: Times
    ) -> Transition:
        """Move on, with the noise of x_t."""
        x0_hat = self.estimate(schedule, x_t, mu, noise_hat, times)
        return Transition(irsde.implicit_step(schedule, x_t, x0_hat, mu, times.t, s=times.s), None, None)


@dataclasses.dataclass(frozen=True)
class DpmSolver(X0Sampler):
    """`Ddim` with the clean estimate extrapolated to the middle of the step: of second order.

        x_s = implicit_step(x_t, x0_hat + slope (x0_hat - x0_hat of the step before))
        slope = h / (2 h of the step before),   h = log(C / sigma_bar_s) - log(B / sigma_bar_t)

    The first step has no earlier one and the last an infinite h: their slope is 0. It remembers its last estimate.

    Source: Lu et al., "DPM-Solver++", 2022 (its multistep 2M), for this process.
    """

    def start(self, x_t: Images) -> Images:
        """Anything: the first step does not use it."""
        return x_t

    def step(
        self, schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, state: State, times: Times
    ) -> Transition:
        """Move on, with the noise of x_t and the extrapolated estimate."""
        x0_hat = self.estimate(schedule, x_t, mu, noise_hat, times)
        ahead = x0_hat + _slope(schedule, times) * (x0_hat - state)
        return Transition(irsde.implicit_step(schedule, x_t, ahead, mu, times.t, s=times.s), None, x0_hat)


@dataclasses.dataclass(frozen=True)
class Sde(Sampler):
    """Euler steps of the reverse-time SDE; with few steps they go wrong first.

        x_s = reverse_sde_mean - sigma_max sqrt(2 (Theta_t - Theta_s) dt) z

    Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023.
    """

    few_steps: ClassVar[int | None] = None

    def step(
        self, schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, state: State, times: Times
    ) -> Transition:
        """Take an Euler step, and draw."""
        # The published sampler subtracts its draw; the sign matters only when the draws are given.
        gap = (schedule.theta_cumsum[times.t] - schedule.theta_cumsum[times.s]) * schedule.dt
        spread = -schedule.max_sigma * jnp.sqrt(2 * gap)
        return Transition(irsde.reverse_sde_mean(schedule, x_t, mu, noise_hat, times.t, s=times.s), spread, None)


@dataclasses.dataclass(frozen=True)
class Ode(Sampler):
    """Euler steps of the probability-flow ODE, without a random part; with few steps they go wrong first.

        x_s = reverse_ode_mean

    Source: as `Sde`.
    """

    few_steps: ClassVar[int | None] = None

    def step(
        self, schedule: Schedule, x_t: Images, mu: Images, noise_hat: Images, state: State, times: Times
    ) -> Transition:
        """Take an Euler step."""
        return Transition(irsde.reverse_ode_mean(schedule, x_t, mu, noise_hat, times.t, s=times.s), None, None)


SAMPLERS: dict[str, type[Sampler]] = {
    "posterior": Posterior,
    "sde": Sde,
    "ode": Ode,
    "ddim": Ddim,
    "dpm_solver": DpmSolver,
}


def make_sampler(sampler: str | Sampler, **options: Any) -> Sampler:
    """The sampler of a name in `SAMPLERS`; a sampler is returned as it is.

    Args:
      sampler: the name, or a sampler, which takes no options here.
      **options: fields of the sampler.

    Returns:
      The sampler.

    Raises:
      ValueError: if there is no such sampler, it has no such option, or the option has no such value.

    Examples:
      >>> from sel.diffusion import make_sampler
      >>> make_sampler("posterior", clip_x0=(0, 1))
      Posterior(clip_x0=(0.0, 1.0))
    """
    if isinstance(sampler, Sampler):
        known: tuple[str, ...] = ()
    elif sampler in SAMPLERS:
        known = tuple(field.name for field in dataclasses.fields(SAMPLERS[sampler]))
    else:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, or a Sampler, found {sampler!r}")
    for name in options:
        if name not in known:
            has = f"has {', '.join(known)}" if known else "has no options"
            raise ValueError(f"{name} is no option of the sampler {sampler!r}, which {has}")
    return sampler if isinstance(sampler, Sampler) else SAMPLERS[sampler](**options)


def as_range(name: str, value: Any) -> tuple[float, float]:
    """Two numbers with low < high.

    Raises:
      ValueError: if they are not.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(end, numbers.Real) for end in value):
        low, high = map(float, value)
        if low < high:
            return low, high
    raise ValueError(f"{name} must be (low, high), two numbers with low < high, or None, found {value!r}")


def _slope(schedule: Schedule, times: Times) -> Float[Array, ""]:
    t, s, before = (-schedule.theta_cumsum[i] * schedule.dt - jnp.log(schedule.sigma_bar[i]) for i in times)
    # At s = 0 the level is infinite.
    inner = (times.before > times.t) & (times.s > 0)
    return jnp.where(inner, (s - t) / (2 * jnp.where(inner, t - before, 1)), 0)
