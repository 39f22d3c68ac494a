"""The one decoder: any file that holds a picture becomes a `Photograph`, or one line that says why not."""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from sel.errors import UserError
from sel.images.formats import HEAD, kind_of
from sel.images.limits import MAX_MEGAPIXELS, check_size
from sel.images.metadata import Metadata, read_metadata
from sel.images.photographs import Photograph
from sel.images.picture import File, Header, upright
from sel.images.pillow import pillow_header
from sel.images.png import png_header
from sel.images.storage import ImageSource, read_bytes
from sel.images.tiff import tiff_header

# They log what they make of odd files; a problem raises.
for _name in ("imagecodecs", "tifffile"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def read_photograph(source: str | ImageSource, *, max_megapixels: float = MAX_MEGAPIXELS) -> Photograph:
    """Read a photograph: PNG, TIFF and PGM of more than 8 bits keep 16, others have 8.

    Of animations the first picture is read, of TIFF the first that is no reduced preview of another. Palette images
    become colour.

    Args:
      source: an image file, or an image in an archive or a prepared set.
      max_megapixels: largest number of pixels, in millions.

    Returns:
      The photograph, upright.

    Raises:
      UserError: if the file is missing, empty, damaged, too large, no image, a raw file or of a pixel format without a
        known white.
    """
    with quiet():
        return decoded(source, max_megapixels)


def image_size(source: str | ImageSource, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """Read (height, width) of the upright image from the file's header alone.

    Args:
      source: an image file, or an image in an archive or a prepared set.
      max_megapixels: largest number of pixels, in millions.

    Returns:
      Height and width in pixels, equal to the shape that `read_image` returns.

    Raises:
      UserError: if the file is missing, empty, too large or no image.
    """
    with quiet(), opened(source, max_megapixels) as header:
        turned = header.orientation in (5, 6, 7, 8)
        return (header.width, header.height) if turned else (header.height, header.width)


def decoded(source: str | ImageSource, max_megapixels: float, *, with_metadata: bool = True) -> Photograph:
    """What `read_photograph` returns; warnings are the caller's matter, and metadata may be left out."""
    with opened(source, max_megapixels) as header:
        pixels = header.decode()
        color, alpha = (
            None if channels is None else upright(channels, header.orientation)
            for channels in (pixels.color, pixels.alpha)
        )
        assert color is not None
        metadata = read_metadata(header.exif, header.info, color.shape) if with_metadata else Metadata()
    return Photograph(color, alpha, metadata.fitting(color.shape[-1]), pixels.note)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings (missing plugins, odd metadata) from the user: a problem raises instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def opened(source: str | ImageSource, max_megapixels: float) -> Iterator[Header]:
    """Open an image; whatever a decoder raises, then or while it is used, becomes a `UserError`."""
    path = Path(source) if isinstance(source, str) else source
    try:
        if isinstance(path, Path) and path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes)")
        with path.open("rb") if isinstance(path, Path) else io.BytesIO(read_bytes(path)) as file:
            yield _header(path, file, max_megapixels)
    except UserError:
        raise
    except Image.DecompressionBombError:  # a picture of an animation that is larger than the animation
        raise UserError(f"{path}: too large") from None
    except MemoryError:
        raise UserError(f"{path}: too large for the memory") from None
    except OSError as error:
        reason = error.strerror or f"damaged or incomplete image ({_one_line(error)})"
        raise UserError(f"{path}: {reason[0].lower()}{reason[1:]}") from None
    except Exception as error:  # decoders raise whatever they stumble upon: struct.error, IndexError, SyntaxError...
        raise UserError(f"{path}: damaged or incomplete image ({type(error).__name__}: {_one_line(error)})") from None


def _header(source: ImageSource, file: File, max_megapixels: float) -> Header:
    kind = kind_of(source, file.read(HEAD))
    file.seek(0)
    check = functools.partial(check_size, source, max_megapixels=max_megapixels)
    if kind == "PNG":
        return png_header(source, file, check)
    if kind == "TIFF":
        return tiff_header(source, file, check)
    return pillow_header(source, kind, file, check)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
