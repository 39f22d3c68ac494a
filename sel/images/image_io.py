"""Images on disk: reading whatever people have as 8-bit RGB, and writing PNG.

In memory an image is `[h, w, 3]`, uint8, sRGB as stored (embedded colour profiles are not applied), upright. Every file
that cannot be used raises a `UserError` that names it and says why.
"""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from sel.errors import UserError
from sel.files import write_whole
from sel.images.storage import SUFFIXES, ImageSource, Report, read_bytes

RGB = UInt8[np.ndarray, "h w 3"]
Progress = Callable[[int, int], object]


def read_image(source: str | ImageSource) -> RGB:
    """Read one image as upright 8-bit RGB.

    EXIF orientation is applied. Grey and palette images become RGB, CMYK is converted without a profile, 16 bits are
    scaled to 8 (65535 becomes 255). Transparent pixels are composited over black: no picture, no light. Of animations
    and multi-page files the first picture is read.

    Args:
        source: An image file, or an image in an archive or a prepared set.

    Returns:
        The image, `[h, w, 3]` uint8.

    Raises:
        UserError: The file is missing, empty, damaged, too large, no image or of a pixel format without a known white.
    """
    with quiet():
        return _decode(source)


def read_images(
    sources: Sequence[str | ImageSource], progress: Progress | None = None, *, report: Report | None = None
) -> tuple[RGB | None, ...]:
    """Read many images as `read_image` does, decoding on as many threads as there are cores.

    Args:
        sources: Image files, or images in archives and prepared sets.
        progress: Called on the calling thread as `progress(done, total)` after each image.
        report: Told of each image that cannot be used; without it the first raises.

    Returns:
        The images, in the order of `sources`; None for those that were reported.

    Raises:
        UserError: As `read_image`, without `report`.
    """
    images: list[RGB | None] = []

    def decode(source: str | ImageSource) -> RGB | UserError:
        try:
            return _decode(source)
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


def image_size(source: str | ImageSource) -> tuple[int, int]:
    """Read (height, width) of the upright image from the file's header alone.

    A PNG that stores its orientation behind its pixels is taken as upright here (`read_image` turns it).

    Args:
        source: An image file, or an image in an archive or a prepared set.

    Returns:
        Height and width in pixels, equal to the shape that `read_image` returns.

    Raises:
        UserError: The file is missing, empty, too large or no image.
    """
    with quiet(), opened(source) as image:
        width, height = image.size
        if image.format == "TIFF":  # of this format Pillow gives the upright size already, in some versions
            width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
        orientation = 1
        with contextlib.suppress(Exception):  # as in _decode; the PNG plugin's own getexif would decode the whole image
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def write_png(
    path: str | Path, image: UInt8[np.ndarray | jax.Array, "h w 3"] | Float[np.ndarray | jax.Array, "h w 3"]
) -> None:
    """Write an 8-bit RGB PNG, whole or not at all: a temporary file beside it takes its name when complete.

    Args:
        path: The file to write or replace; ends in `.png`, its folder exists.
        image: `[h, w, 3]`, uint8, or floating point in [0, 1], which is clipped and rounded to the nearest level.

    Raises:
        UserError: The name does not end in `.png`, or the file cannot be written.
        ValueError: The image has another shape or type, or holds values that are not finite.
    """
    path, pixels = Path(path), _to_uint8(np.asarray(image))
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: images are written as PNG, so the name must end in .png")
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    write_whole(path, content.getvalue())


def list_images(folder: str | Path) -> tuple[Path, ...]:
    """List the image files of a folder (not of its subfolders), numbers in names in numerical order (2 before 10).

    Args:
        folder: A folder.

    Returns:
        Paths with one of `SUFFIXES`, upper or lower case; hidden files are passed over.

    Raises:
        UserError: The folder is missing, no folder, unreadable, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from None
    # A broken link is listed: reading it says what is wrong, and where.
    images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.is_dir()]
    if not images:
        found = f"{len(entries)} other entries" if entries else "nothing"
        raise UserError(f"{folder}: holds no image ({', '.join(SUFFIXES)}), found {found}")
    return tuple(sorted(images, key=lambda path: natural_order(path.name)))


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Key that sorts names with numbers in numerical order, 2 before 10."""
    parts = re.split("([0-9]+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings (missing plugins, odd metadata, large images) from the user: a problem raises instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def opened(source: str | ImageSource) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises, then or while it is used, becomes a `UserError`."""
    path = Path(source) if isinstance(source, str) else source
    try:
        if isinstance(path, Path) and path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes)")
        # Not by its name: Pillow maps uncompressed TIFF files into memory, with the wrong stride if they are turned.
        with (
            path.open("rb") if isinstance(path, Path) else io.BytesIO(read_bytes(path)) as file,
            Image.open(file) as image,
        ):
            yield image
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image, or of a kind that Pillow cannot read") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UserError(f"{path}: too large, above {limit} million pixels") from None
    except OSError as error:
        reason = error.strerror or f"damaged or incomplete image ({error})"
        raise UserError(f"{path}: {reason[0].lower()}{reason[1:]}") from None
    except Exception as error:  # decoders raise whatever they stumble upon: struct.error, IndexError, SyntaxError...
        raise UserError(f"{path}: damaged image ({type(error).__name__}: {error})") from None


def _decode(source: str | ImageSource) -> RGB:
    with opened(source) as image:
        image.load()
        upright: Image.Image = image
        with contextlib.suppress(Exception):  # the pixels are good: unreadable metadata must not hide them
            upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            return _grey_from_16_bits(source, np.asarray(upright))
        if upright.mode == "F":
            raise UserError(f"{source}: floating-point pixels have no known white; save it with 8 or 16 bits")
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright)
        return np.array(upright.convert("RGB"))


def _grey_from_16_bits(source: str | ImageSource, values: np.ndarray) -> RGB:
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{source}: 32-bit integer pixels have no known white; save it with 8 or 16 bits")
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _to_uint8(image: np.ndarray) -> RGB:
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image must be [h, w, 3], got shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    if not jax.numpy.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be uint8 or floating point in [0, 1], got {image.dtype}")
    image = image.astype(np.float32)
    if not np.isfinite(image).all():
        raise ValueError("image must be finite, got NaN or infinite values")
    return np.floor(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
