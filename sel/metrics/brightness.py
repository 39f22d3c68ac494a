"""GT-mean: an output scaled to the brightness of its reference, which some papers do before they score it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sel.types import Image

# OpenCV's and Rec. 601's grey.
_GREY = (0.299, 0.587, 0.114)


def match_gt_mean(image: Image, reference: Image) -> Image:
    """Scale each image to the mean grey of its reference.

        image' = clip(image * mean(grey(reference)) / mean(grey(image)), 0, 1),   grey = 0.299 R + 0.587 G + 0.114 B

    One factor for the three channels. The result is not rounded to 8 bits. It has been given the right
    brightness, which other methods must find: never mix its scores with scores without GT-mean.

    Args:
      image: RGB images in [0, 1], any leading axes.
      reference: images of the same shape.

    Returns:
      The scaled images. Black ones, which no factor brightens, stay as they are.

    Raises:
      ValueError: if the shapes differ, or the images are not RGB.

    Source: the evaluation code of LLFlow (Wang et al., AAAI 2022), which says that it follows KinD (Zhang et al., ACM
    MM 2019). Departure: LLFlow gives red the weight of blue and blue that of red, and others round down to 8 bits.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.metrics import match_gt_mean
      >>> dark, bright = jnp.full((8, 8, 3), 0.1), jnp.full((8, 8, 3), 0.5)
      >>> round(float(match_gt_mean(dark, bright).mean()), 4)
      0.5
    """
    if image.shape != reference.shape or image.shape[-1] != 3:
        raise ValueError(f"image and reference must be RGB of one shape, found {image.shape} and {reference.shape}")
    mean, target = _mean_grey(image), _mean_grey(reference)
    factor = jnp.where(mean > 0, target / jnp.where(mean > 0, mean, 1), 1)
    return jnp.clip(image * factor, 0, 1)


def _mean_grey(image: Image) -> Float[Array, "*batch 1 1 1"]:
    # The mean over pixels first: a sum over channels of every pixel would round more often.
    means = jnp.mean(image, axis=(-3, -2), keepdims=True)
    return jnp.sum(means * jnp.asarray(_GREY, image.dtype).reshape((1,) * (image.ndim - 1) + (3,)), -1, keepdims=True)
