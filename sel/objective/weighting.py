"""How much each time step t counts in the objective."""

import abc
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from sel.choices import check, setting
from sel.diffusion import Schedule
from sel.objective.compared import X0


class Weighting(abc.ABC):
    """How much each t counts. To add one, derive from this class and enter it in `T_WEIGHTINGS`."""

    @abc.abstractmethod
    def weights(self, slopes: Float[Array, " t"], schedule: Schedule) -> Float[Array, " t"]:
        """Weights of t = 1..T, up to a factor, where `slopes` are those of the compared image."""


@dataclass(frozen=True)
class Unweighted(Weighting):
    """Every t counts the same, as published: w_t = 1."""

    def weights(self, slopes: Float[Array, " t"], schedule: Schedule) -> Float[Array, " t"]:
        """As `Weighting`."""
        return jnp.ones_like(slopes)


@dataclass(frozen=True)
class NoiseWeighting(Weighting):
    """An error of the noise counts the same at every t: w_t = 1 / slope_t.

    A loss of first order in small errors (l1, Hellinger) so becomes noise matching, whatever is compared.
    """

    def weights(self, slopes: Float[Array, " t"], schedule: Schedule) -> Float[Array, " t"]:
        """As `Weighting`."""
        return 1 / slopes


@dataclass(frozen=True)
class MinSnr(Weighting):
    """Less weight for early t, where most of the noise is too faint to be told from the image.

        w_t = min(1, sqrt(snr_cap) / snr_t) / slope_t,   snr_t = exp(-Theta_t dt) / sigma_bar_t

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023, whose
    min(snr_t^2, gamma) is for squared errors of x0: here is its root, for a signal x0 - mu of size 1.
    """

    snr_cap: float = setting(5.0, above=0, doc="gamma, the bound on the squared signal-to-noise ratio")

    def __post_init__(self) -> None:
        check(self)

    def weights(self, slopes: Float[Array, " t"], schedule: Schedule) -> Float[Array, " t"]:
        """As `Weighting`."""
        return jnp.minimum(1, jnp.sqrt(self.snr_cap) * X0().slopes(schedule)) / slopes


T_WEIGHTINGS: dict[str, type[Weighting]] = {"none": Unweighted, "noise": NoiseWeighting, "min_snr": MinSnr}
