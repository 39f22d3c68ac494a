"""Images into files, whole or not at all: 8-bit PNG from arrays, photographs in the format that a name says."""

import io
from pathlib import Path

import imagecodecs
import jax
import numpy as np
import tifffile
from jaxtyping import Float, UInt8
from PIL import Image

from sel.errors import UserError
from sel.files import write_whole
from sel.images.metadata import Metadata, add_tiff_directories, pillow_options, tiff_options
from sel.images.photographs import Photograph
from sel.images.picture import Color, to_8_bits
from sel.images.png import add_png_metadata

# What is written, by the end of a name.
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP"}
FORMATS |= {".tif": "TIFF", ".tiff": "TIFF"}

# Other formats get 8 bits.
_DEEP = ("PNG", "TIFF")


def write_png(
    path: str | Path, image: UInt8[np.ndarray | jax.Array, "h w 3"] | Float[np.ndarray | jax.Array, "h w 3"]
) -> None:
    """Write an 8-bit RGB PNG, whole or not at all: a temporary file beside it takes its name when complete.

    Args:
      path: the file to write or replace; ends in `.png`, its folder exists.
      image: `[h, w, 3]`, uint8, or floating point in [0, 1], which is clipped and rounded to the nearest level.

    Raises:
      UserError: if the name does not end in `.png`, or the file cannot be written.
      ValueError: if the image has another shape or type, or holds values that are not finite.
    """
    path, pixels = Path(path), _to_uint8(np.asarray(image))
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: images are written as PNG, so the name must end in .png")
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    write_whole(path, content.getvalue())


def write_photograph(path: Path, photograph: Photograph) -> None:
    """Write a photograph in the format that the name says, whole or not at all.

    JPEG and WebP are written at quality 95 and 8 bits.

    Args:
      path: the file to write or replace, with one of the ends in `FORMATS`; its folder exists.
      photograph: what to write.

    Raises:
      UserError: if the format cannot hold it, or the file cannot be written.
    """
    check_format(path, photograph)
    kind, metadata = FORMATS[path.suffix.lower()], photograph.metadata
    parts = [photograph.color] if photograph.alpha is None else [photograph.color, photograph.alpha]
    pixels = np.concatenate(parts, axis=-1)
    if kind not in _DEEP:
        pixels = to_8_bits(pixels)
    try:
        content = _encode(pixels, kind, metadata)
    except Exception:  # metadata that Pillow reads and doesn't write; pixels alone are worth having
        try:
            content = _encode(pixels, kind, Metadata(icc=metadata.icc))
        except Exception as error:
            raise UserError(f"{path}: cannot be written as {kind} ({str(error) or type(error).__name__})") from None
    write_whole(path, content)


def check_format(path: Path, photograph: Photograph) -> None:
    """See that a format can hold a photograph.

    Raises:
      UserError: if it cannot.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path}: the name must end in one of {', '.join(FORMATS)}")
    if kind == "JPEG" and photograph.alpha is not None:
        raise UserError(f"{path}: JPEG has no transparency, which the photograph has; choose .png, .webp or .tif")
    most = {"JPEG": 65500, "WEBP": 16383}.get(kind)
    if most and max(photograph.color.shape) > most:
        raise UserError(f"{path}: {kind} holds up to {most} pixels a side; choose .png or .tif")


def _encode(pixels: Color, kind: str, metadata: Metadata) -> bytes:
    plain = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    if kind == "PNG":
        return add_png_metadata(bytes(imagecodecs.png_encode(plain)), metadata)
    content = io.BytesIO()
    if kind == "TIFF":
        options = tiff_options(metadata) | {"photometric": "rgb" if pixels.shape[-1] > 2 else "minisblack"}
        if pixels.shape[-1] in (2, 4):
            options["extrasamples"] = ["unassalpha"]
        tifffile.imwrite(content, plain, compression="zlib", predictor=True, planarconfig="contig", **options)
        return add_tiff_directories(content.getvalue(), metadata)
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"quality": 95}
    Image.fromarray(plain).save(content, kind, **options, **pillow_options(metadata, kind))
    return content.getvalue()


def _to_uint8(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image must be [h, w, 3], found shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    if not jax.numpy.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be uint8 or floating point in [0, 1], found {image.dtype}")
    image = image.astype(np.float32)
    if not np.isfinite(image).all():
        raise ValueError("image must be finite, found NaN or infinite values")
    return np.floor(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
