"""Images made smaller."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def reduced_size(height: int, width: int, longest_side: int) -> tuple[int, int]:
    """(height, width) of an image whose longer side is at most `longest_side`, in the same proportion."""
    scale = min(1.0, longest_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def reduced(image: UInt8[np.ndarray, "h w 3"], longest_side: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Reduce an image by a Lanczos filter; one that is small enough is returned as it is.

    Args:
      image: 8-bit RGB.
      longest_side: pixels of the longer side of the result, at most.

    Returns:
      The image, of `reduced_size`.
    """
    size = reduced_size(image.shape[0], image.shape[1], longest_side)
    if size == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))


def thumbnail(image: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Means over equal boxes, whatever the proportions of the image are."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))
