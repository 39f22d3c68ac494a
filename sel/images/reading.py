"""Images as arrays for training and evaluation: upright 8-bit RGB.

In memory an image is `[h, w, 3]`, uint8, sRGB as stored (of embedded colour profiles only those of CMYK are applied),
upright. Every file that cannot be used raises a `UserError` that names it and says why.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

from sel.errors import UserError
from sel.images.decoding import decoded, quiet
from sel.images.limits import MAX_MEGAPIXELS
from sel.images.storage import ImageSource, OnProblem

RGB = UInt8[np.ndarray, "h w 3"]
Progress = Callable[[int, int], object]


def read_image(source: str | ImageSource, *, max_megapixels: float = MAX_MEGAPIXELS) -> RGB:
    """Read one image as upright 8-bit RGB: the pixels of `read_photograph`, in another form.

    EXIF orientation is applied. Grey and palette images become RGB, 16 bits are scaled to 8 (65535 becomes 255).
    Transparent pixels are composited over black: no picture, no light.

    Args:
      source: an image file, or an image in an archive or a prepared set.
      max_megapixels: largest number of pixels, in millions.

    Returns:
      The image, `[h, w, 3]` uint8.

    Raises:
      UserError: as `read_photograph`.
    """
    with quiet():
        return decoded(source, max_megapixels, with_metadata=False).rgb()


def read_images(
    sources: Sequence[str | ImageSource],
    progress: Progress | None = None,
    *,
    report: OnProblem | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> tuple[RGB | None, ...]:
    """Read many images as `read_image` does, decoding on as many threads as there are cores.

    Args:
      sources: image files, or images in archives and prepared sets.
      progress: called on the calling thread as `progress(done, total)` after each image.
      report: told of each image that cannot be used; without it the first raises.
      max_megapixels: largest number of pixels of an image, in millions.

    Returns:
      The images, in the order of `sources`; None for those that were reported.

    Raises:
      UserError: as `read_image`, without `report`.
    """
    images: list[RGB | None] = []

    def decode(source: str | ImageSource) -> RGB | UserError:
        try:
            return decoded(source, max_megapixels, with_metadata=False).rgb()
        except UserError as error:
            if report is None:
                raise
            return error

    # Warning filters belong to the process: they are changed once, around all threads.
    with quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for image in pool.map(decode, sources):
            if isinstance(image, UserError):
                assert report is not None
                report(image)
            images.append(None if isinstance(image, UserError) else image)
            if progress is not None:
                progress(len(images), len(sources))
    return tuple(images)
