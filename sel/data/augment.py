"""Paired augmentation of 8-bit images: a random square, turned and mirrored, sometimes from the pair shrunk to 0.8.

The draw is data, apart from the cut, so that both images of a pair are cut alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Crop:
    """Where and how to cut a square: corner in pixels of the (perhaps shrunk) image, `turns` by 90 degrees."""

    top: int
    left: int
    turns: int
    mirror: bool
    shrink: bool


def smallest_side(size: int, resize_chance: float) -> int:
    """Return the smallest image side, in pixels, that a crop of `size` always fits into, shrunk or not."""
    return -(-size * 5 // 4) if resize_chance > 0 else size


def draw_crops(
    rng: np.random.Generator, shapes: Sequence[tuple[int, int]], size: int, resize_chance: float
) -> list[Crop]:
    """Draw one crop per image: place, mirror and turn uniform, so that all eight orientations are equally likely.

    Args:
        rng: Random generator, always advanced by the same amount for one number of images.
        shapes: Height and width of each image in pixels, at least `smallest_side(size, resize_chance)`.
        size: Side of the square in pixels.
        resize_chance: Probability in [0, 1] that the image is shrunk to 0.8 before it is cut.

    Returns:
        One crop per image.
    """
    shrink = rng.random(len(shapes)) < resize_chance
    sides = np.asarray(shapes)
    sides = np.where(shrink[:, None], sides * 4 // 5, sides)
    corners = np.floor(rng.random(sides.shape) * (sides - size + 1)).astype(int)
    turns, mirror = rng.integers(4, size=len(shapes)), rng.integers(2, size=len(shapes))
    return [
        Crop(int(top), int(left), int(turn), bool(flip), bool(small))
        for (top, left), turn, flip, small in zip(corners, turns, mirror, shrink, strict=True)
    ]


def cut(image: UInt8[np.ndarray, "h w c"], crop: Crop, size: int) -> UInt8[np.ndarray, "s s c"]:
    """Cut one crop. Shrinking is bicubic with antialiasing, computed for the pixels of the crop alone.

    Args:
        image: 8-bit image.
        crop: A draw that fits the image.
        size: Side of the square in pixels.

    Returns:
        The crop (a view of `image` where it was not shrunk).
    """
    if crop.shrink:
        left, top, side = 1.25 * crop.left, 1.25 * crop.top, 1.25 * size
        box = (left, top, left + side, top + side)
        square = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box))
    else:
        square = image[crop.top : crop.top + size, crop.left : crop.left + size]
    square = np.rot90(square, crop.turns)
    return square[:, ::-1] if crop.mirror else square
