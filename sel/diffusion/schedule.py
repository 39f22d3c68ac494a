"""Noise schedules of the mean-reverting diffusion (IR-SDE), tabulated once per run."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sel.choices import check, setting


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["theta", "theta_cumsum", "sigma", "sigma_bar", "dt"],
    meta_fields=["num_steps", "max_sigma"],
)
@dataclasses.dataclass(frozen=True)
class Schedule:
    """Tables over the steps t = 0..T of dx = theta_t (mu - x) dt + sigma_t dw.

    Attributes:
      theta: speed of the return to `mu`, `[T + 1]`.
      theta_cumsum: theta_t, the sum of theta_1..theta_t, `[T + 1]`; Theta_0 = 0.
      sigma: size of the diffusion term, in image units, `[T + 1]`.
      sigma_bar: standard deviation of x_t given x0, in image units, `[T + 1]`.
      dt: length of a step, such that exp(-Theta_T dt) = eps.
      num_steps: T, the number of steps. Static.
      max_sigma: standard deviation of the noise when the process has come to rest, in image units. Static.
    """

    theta: Float[Array, " steps"]
    theta_cumsum: Float[Array, " steps"]
    sigma: Float[Array, " steps"]
    sigma_bar: Float[Array, " steps"]
    dt: Float[Array, ""]
    num_steps: int
    max_sigma: float


def _cosine(num_steps: int) -> np.ndarray:
    phase = np.arange(num_steps + 2) / (num_steps + 2)
    f = np.cos((phase + 0.008) / 1.008 * np.pi / 2) ** 2
    return 1 - f[1:] / f[0]


def _linear(num_steps: int) -> np.ndarray:
    return np.linspace(0.1, 20.0, num_steps + 1) / (num_steps + 1)


def _constant(num_steps: int) -> np.ndarray:
    return np.ones(num_steps + 1)


KINDS: dict[str, Callable[[int], np.ndarray]] = {"cosine": _cosine, "linear": _linear, "constant": _constant}


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """What determines a `Schedule`; see `make_schedule`.

    Examples:
      >>> from sel.diffusion import Diffusion
      >>> Diffusion(kind="linear", num_steps=10).schedule().num_steps
      10
    """

    kind: str = setting("cosine", choices=tuple(KINDS), doc="how theta grows with t")
    num_steps: int = setting(100, at_least=1, doc="T, the number of steps")
    max_sigma: float = setting(
        50 / 255, above=0, doc="standard deviation of the noise at rest, in image units: images lie in [0, 1]"
    )
    eps: float = setting(0.005, above=0, below=1, doc="what is left of x0 - mu after the last step")

    def __post_init__(self) -> None:
        check(self)

    def schedule(self) -> Schedule:
        """The tables."""
        return make_schedule(**vars(self))


def make_schedule(
    kind: str = Diffusion.kind,
    num_steps: int = Diffusion.num_steps,
    max_sigma: float = Diffusion.max_sigma,
    eps: float = Diffusion.eps,
) -> Schedule:
    """Tabulate a schedule.

        Theta_t = cumsum(theta)_t - theta_0,   dt = -log(eps) / Theta_T,
        sigma_t = sqrt(2 max_sigma^2 theta_t),   sigma_bar_t = max_sigma sqrt(1 - exp(-2 Theta_t dt))

    The tables are computed in float64 and rounded once to float32.

    Args:
      kind: how theta grows with t: "cosine", "linear" or "constant".
      num_steps: T, at least 1.
      max_sigma: noise level at rest, above 0, in image units: images lie in [0, 1], so the published 50 is 50 / 255.
      eps: what is left of x0 - mu after the last step, exp(-Theta_T dt), in (0, 1).

    Returns:
      The schedule, a pytree of float32 arrays of length T + 1; index 0 is the clean image.

    Raises:
      ValueError: if an argument lies outside the values above.

    Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023. The
    published code gives max_sigma in steps of 1/255 and sums theta in float32; agreement is to about 1e-6.

    Examples:
      >>> from sel.diffusion import make_schedule
      >>> schedule = make_schedule(num_steps=10)
      >>> schedule.sigma_bar.shape, float(schedule.sigma_bar[0])
      ((11,), 0.0)
    """
    Diffusion(kind, num_steps, max_sigma, eps)  # checks them
    theta = KINDS[kind](num_steps)
    theta_cumsum = np.cumsum(theta) - theta[0]
    dt = -np.log(eps) / theta_cumsum[-1]
    return Schedule(
        theta=jnp.asarray(theta, jnp.float32),
        theta_cumsum=jnp.asarray(theta_cumsum, jnp.float32),
        sigma=jnp.asarray(max_sigma * np.sqrt(2 * theta), jnp.float32),
        sigma_bar=jnp.asarray(max_sigma * np.sqrt(-np.expm1(-2 * theta_cumsum * dt)), jnp.float32),
        dt=jnp.asarray(dt, jnp.float32),
        num_steps=num_steps,
        max_sigma=float(max_sigma),
    )
