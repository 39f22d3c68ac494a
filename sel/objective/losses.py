"""The losses by name: how far two images are apart, one value for each pair. `LOSSES` is where they have names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sel.choices import setting
from sel.entropy import CombinedLoss, SpatialEntropyLoss

Images = Float[Array, "b h w c"]


def l1_loss(predictions: Images, targets: Images) -> Float[Array, " b"]:
    """Mean absolute difference of each image: the baseline that the paper compares with.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.objective import l1_loss
      >>> l1_loss(jnp.zeros((2, 8, 8, 3)), jnp.full((2, 8, 8, 3), 0.5)).tolist()
      [0.5, 0.5]
    """
    return jnp.abs(predictions - targets).mean((1, 2, 3))


def l2_loss(predictions: Images, targets: Images) -> Float[Array, " b"]:
    """Mean squared difference of each image.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.objective import l2_loss
      >>> l2_loss(jnp.zeros((2, 8, 8, 3)), jnp.full((2, 8, 8, 3), 0.5)).tolist()
      [0.25, 0.25]
    """
    return jnp.square(predictions - targets).mean((1, 2, 3))


@runtime_checkable
class Loss(Protocol):
    """A function of two images, whose options are the fields of a frozen dataclass: an entry of `LOSSES`."""

    def draw(self, key: PRNGKeyArray) -> Mapping[str, Array]:
        """What chance decides in each step of training, for all images alike: further arguments by name."""
        ...

    def __call__(self, predictions: Images, targets: Images, **drawn: Any) -> Float[Array, " b"]:
        """One value for each pair of images."""
        ...


@dataclass(frozen=True)
class L1:
    """See `l1_loss`."""

    def draw(self, key: PRNGKeyArray) -> Mapping[str, Array]:
        """Nothing."""
        return {}

    def __call__(self, predictions: Images, targets: Images) -> Float[Array, " b"]:
        """As `l1_loss`."""
        return l1_loss(predictions, targets)


@dataclass(frozen=True)
class L2:
    """See `l2_loss`."""

    def draw(self, key: PRNGKeyArray) -> Mapping[str, Array]:
        """Nothing."""
        return {}

    def __call__(self, predictions: Images, targets: Images) -> Float[Array, " b"]:
        """As `l2_loss`."""
        return l2_loss(predictions, targets)


@dataclass(frozen=True, kw_only=True)
class Mixture(CombinedLoss):
    """`sel.CombinedLoss`, which as an objective needs a term, and by default has a little l1."""

    l1: Any = setting(0.1, at_least=0, doc="weight of the mean absolute difference", rule="a weight of at least 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any((self.entropy, self.l1, self.blurred_l1)):
            raise ValueError("a mixture needs a weight above 0: entropy, l1 or blurred_l1")


LOSSES: dict[str, type] = {"spatial_entropy": SpatialEntropyLoss, "l1": L1, "l2": L2, "mixture": Mixture}
