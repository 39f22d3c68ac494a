"""The entropy loss mixed with differences of pixels."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from sel.choices import setting
from sel.entropy.inputs import Pixels, checked, working_dtype
from sel.entropy.loss import SpatialEntropyLoss
from sel.entropy.meshes import of_batch, on_any_mesh
from sel.entropy.neighborhood import absolute, blur
from sel.entropy.options import from_options, is_number, known


@dataclass(frozen=True, kw_only=True)
class CombinedLoss(SpatialEntropyLoss):
    """`combined_loss` with its options chosen and checked: a function of two images.

        entropy * spatial_entropy_loss + l1 * mean |x - y| + blurred_l1 * mean |g * x - g * y|

    Attributes:
      entropy: weight of the spatial-entropy loss, at least 0. Terms with weight 0 are not computed.
      l1: weight of the mean absolute difference, at least 0.
      blurred_l1: weight of the mean absolute difference of images blurred by a Gaussian g, at least 0.
      blur_sigma: standard deviation of g in pixels, above 0.
      divergence: this and the other options are those of `sel.SpatialEntropyLoss`, for the first term.

    Raises:
      ValueError: if an option has no such value, also one of a term with weight 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> import sel
      >>> loss = sel.CombinedLoss(entropy=0.0, l1=2.0)
      >>> float(loss(jnp.full((1, 8, 8, 3), 0.25), jnp.full((1, 8, 8, 3), 0.75))[0])
      1.0
    """

    entropy: Any = setting(1.0, rule="a weight of at least 0", doc="weight of the spatial entropy")
    l1: Any = setting(0.0, rule="a weight of at least 0", doc="weight of the mean absolute difference")
    blurred_l1: Any = setting(
        0.0, rule="a weight of at least 0", doc="weight of the mean absolute difference of blurred images"
    )
    blur_sigma: float = setting(2.0, above=0, doc="standard deviation of that blur, in pixels")

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        super().__post_init__()
        for name in ("entropy", "l1", "blurred_l1"):
            weight = getattr(self, name)
            if not is_number(weight) or not 0 <= known(weight, 1) < jnp.inf:
                raise ValueError(f"{name} must be a weight of at least 0, found {weight!r}")
        if not is_number(self.blur_sigma) or not 0 < known(self.blur_sigma, -1) < jnp.inf:
            raise ValueError(f"blur_sigma must be a positive number of pixels, found {self.blur_sigma!r}")

    def __call__(  # type: ignore[override]  # its terms are means over the image: there is no map
        self,
        predictions: Pixels,
        targets: Pixels,
        *,
        where: Pixels | None = None,
        neighbor_weights: Pixels | None = None,
    ) -> Float[Array, "..."]:
        """The loss of each image; `where` masks every term."""
        images = {"predictions": predictions, "targets": targets}
        where = checked(images, where, self)
        return on_any_mesh(CombinedLoss._of_images, self, images, of_batch, where=where, drawn=neighbor_weights)

    def _of_images(self, images, where, drawn):
        predictions, targets = images.values()
        dtype = working_dtype(predictions.dtype)
        difference = jnp.asarray(predictions, dtype) - jnp.asarray(targets, dtype)
        mask = jnp.ones_like(difference) if where is None else jnp.asarray(where, dtype)
        difference = jnp.where(mask > 0, difference, 0)
        count = jnp.maximum(mask.sum((-3, -2, -1)), 1)
        total = jnp.zeros(predictions.shape[:-3], dtype)
        if _is_on(self.entropy):
            loss = super().__call__(predictions, targets, where=where, neighbor_weights=drawn)
            total += jnp.asarray(self.entropy, dtype) * loss.astype(dtype)
        if _is_on(self.l1):
            total += jnp.asarray(self.l1, dtype) * absolute(difference).sum((-3, -2, -1)) / count
        if _is_on(self.blurred_l1):
            blurred = blur(difference, self.blur_sigma) / jnp.maximum(blur(mask, self.blur_sigma), 1e-6)
            mean = (absolute(blurred) * mask).sum((-3, -2, -1)) / count
            total += jnp.asarray(self.blurred_l1, dtype) * mean
        return total.astype(predictions.dtype)


def combined_loss(
    predictions: Pixels, targets: Pixels, *, where: Pixels | None = None, **options: Any
) -> Float[Array, "..."]:
    """Weighted sum: entropy * spatial_entropy_loss + l1 * mean |x - y| + blurred_l1 * mean |g * x - g * y|.

    The entropy loss is blind to where inside its windows a pixel is; a little l1 ties the image down, and l1 of images
    blurred by a Gaussian g its colours, without smoothing its details.

    Args:
      predictions: as in `spatial_entropy_loss`.
      targets: as in `spatial_entropy_loss`.
      where: as in `spatial_entropy_loss`; it masks every term.
      **options: the attributes of `sel.CombinedLoss`: weights `entropy` (1), `l1` (0) and `blurred_l1` (0),
        `blur_sigma` (2 pixels), and the options of `spatial_entropy_loss`, but not `return_map`. All are checked, also
        those of terms with weight 0.

    Returns:
      One value per image.

    Raises:
      TypeError: as `spatial_entropy_loss`, or for an unknown option.
      ValueError: as `spatial_entropy_loss`, if a weight is negative, or if `blur_sigma` is not positive.

    Examples:
      >>> import jax.numpy as jnp
      >>> import sel
      >>> dark, bright = jnp.full((1, 8, 8, 3), 0.25), jnp.full((1, 8, 8, 3), 0.75)
      >>> loss = sel.combined_loss(dark, bright, l1=0.1, num_bins=8, windows=(1,))
      >>> round(float(loss[0]), 2)  # Hellinger: 0.98, l1: 0.5
      1.03
    """
    return from_options(CombinedLoss, "combined_loss", options)(predictions, targets, where=where)


def _is_on(weight: Any) -> bool:
    return known(weight, 1) != 0
