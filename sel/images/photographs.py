"""Photographs as people have them: what is read is written back, in its depth, channels and metadata.

`read_photograph` keeps what `read_image` gives up for training: 16 bits, one grey channel, transparency, and what the
file says of the photograph. Pixels are those that are stored, upright; a colour profile is kept and not applied, except
that of CMYK, which becomes sRGB.
"""

import contextlib
import io
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import Float, UInt8, UInt16
from PIL import ExifTags, Image, ImageCms, ImageOps

from sel.errors import UserError
from sel.files import write_whole
from sel.images.image_io import opened, quiet
from sel.images.metadata import (
    Metadata,
    add_png_chunks,
    add_tiff_directories,
    pillow_options,
    read_metadata,
    tiff_options,
)

# They log what they make of odd files; a problem raises.
for _name in ("imagecodecs", "tifffile"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

Channels = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Alpha = UInt8[np.ndarray, "h w 1"] | UInt16[np.ndarray, "h w 1"]

# What is written, by the end of a name.
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP"}
FORMATS |= {".tif": "TIFF", ".tiff": "TIFF"}

# Other formats get 8 bits.
_DEEP = ("PNG", "TIFF")
# Grey of a colour, as in Pillow and ITU-R BT.601.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Photograph:
    """A photograph, upright.

    Attributes:
        color: Its pixels as stored, one channel (grey) or three; 8 or 16 bits.
        alpha: Its opacity, of the same type, or None.
        metadata: What else its file says.
    """

    color: Channels
    alpha: Alpha | None
    metadata: Metadata

    def intensities(self) -> Float[np.ndarray, "h w 3"]:
        """The colour, in [0, 1]; grey three times."""
        scaled = self.color.astype(np.float32) / np.float32(np.iinfo(self.color.dtype).max)
        return np.repeat(scaled, 3, axis=-1) if scaled.shape[-1] == 1 else scaled

    def replaced(self, intensities: Float[np.ndarray, "h w 3"]) -> "Photograph":
        """The photograph with another colour, in [0, 1]; one that is grey stays grey."""
        if self.color.shape[-1] == 1:
            intensities = (intensities @ _GREY)[..., None]
        white = np.iinfo(self.color.dtype).max
        return replace(self, color=np.rint(np.clip(intensities, 0, 1) * white).astype(self.color.dtype))


def read_photograph(path: Path) -> Photograph:
    """Read a photograph in whatever format Pillow reads; PNG and TIFF of 16 bits keep them.

    Of animations and files of several pages the first picture is read. Palette images become colour.

    Args:
        path: A file.

    Returns:
        The photograph.

    Raises:
        UserError: The file is missing, empty, damaged, too large, no image or of a pixel format without a known white.
    """
    try:
        with quiet(), opened(path) as image:
            if image.format in ("PNG", "TIFF") and _depth(image, path) == 16:
                pixels = _read_deep_png(path) if image.format == "PNG" else _read_deep_tiff(path)
                orientation = 1
                with contextlib.suppress(Exception):  # the pixels are good: unreadable metadata must not hide them
                    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                pixels = _upright(pixels, orientation)
            else:
                pixels = _read_pillow(path, image)
            metadata = read_metadata(image, pixels.shape)
    except UserError:
        # Grey TIFF with opacity, 16 bits each, and other kinds that Pillow doesn't know; a pipe would be waited for.
        with contextlib.suppress(Exception):
            if path.is_file() and path.stat().st_size:
                return _photograph(_read_deep_tiff(path), Metadata())
        raise
    return _photograph(pixels, metadata)


def write_photograph(path: Path, photograph: Photograph) -> None:
    """Write a photograph in the format that the name says, whole or not at all.

    JPEG and WebP are written at quality 95 and 8 bits.

    Args:
        path: The file to write or replace, with one of the ends in `FORMATS`; its folder exists.
        photograph: What to write.

    Raises:
        UserError: The format cannot hold it, or the file cannot be written.
    """
    check_format(path, photograph)
    kind, metadata = FORMATS[path.suffix.lower()], photograph.metadata
    parts = [photograph.color] if photograph.alpha is None else [photograph.color, photograph.alpha]
    pixels = np.concatenate(parts, axis=-1)
    if pixels.dtype == np.uint16 and kind not in _DEEP:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    try:
        content = _encode(pixels, kind, metadata)
    except Exception as error:  # metadata that Pillow reads and doesn't write; pixels alone are worth having
        try:
            content = _encode(pixels, kind, Metadata(icc=metadata.icc))
        except Exception:
            raise UserError(f"{path}: cannot be written as {kind} ({str(error) or type(error).__name__})") from None
    write_whole(path, content)


def check_format(path: Path, photograph: Photograph) -> None:
    """See that a format can hold a photograph.

    Raises:
        UserError: It cannot.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path}: the name must end in one of {', '.join(FORMATS)}")
    if kind == "JPEG" and photograph.alpha is not None:
        raise UserError(f"{path}: JPEG has no transparency, which the photograph has; choose .png, .webp or .tif")
    most = {"JPEG": 65500, "WEBP": 16383}.get(kind)
    if most and max(photograph.color.shape) > most:
        raise UserError(f"{path}: {kind} holds up to {most} pixels a side; choose .png or .tif")


def _photograph(pixels: Channels, metadata: Metadata) -> Photograph:
    grey = pixels.shape[-1] < 3
    if metadata.icc and metadata.icc[16:20] != (b"GRAY" if grey else b"RGB "):  # that of CMYK, or of lost colours
        metadata = replace(metadata, icc=b"")
    if pixels.shape[-1] in (2, 4):
        return Photograph(pixels[..., :-1], pixels[..., -1:], metadata)
    return Photograph(pixels, None, metadata)


def _read_pillow(path: Path, image: Image.Image) -> Channels:
    image.load()
    upright: Image.Image = image
    with contextlib.suppress(Exception):
        upright = ImageOps.exif_transpose(image)
    if upright.mode in ("F", "I", "LAB", "HSV"):
        raise UserError(f"{path}: pixels of the kind {upright.mode} have no known white; save it with 8 or 16 bits")
    if upright.mode.startswith("I;16"):
        return np.asarray(upright).astype(np.uint16)[..., None]
    if upright.mode == "CMYK":
        upright = _from_cmyk(upright)
    grey = upright.mode in ("1", "L", "LA", "La")
    wanted = ("LA" if grey else "RGBA") if upright.has_transparency_data else ("L" if grey else "RGB")
    pixels = np.array(upright.convert(wanted))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _from_cmyk(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):
        profile = ImageCms.getOpenProfile(io.BytesIO(image.info["icc_profile"]))
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        if converted is not None:
            return converted
    return image.convert("RGB")


def _depth(image: Image.Image, path: Path) -> int:
    """Bits of a channel in a PNG or TIFF, of which Pillow gives eight."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))  # type: ignore[attr-defined]
    with path.open("rb") as file:
        return file.read(25)[24]


def _read_deep_png(path: Path) -> Channels:
    pixels = imagecodecs.png_decode(path.read_bytes())
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _read_deep_tiff(path: Path) -> Channels:
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        if page.imagewidth * page.imagelength > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
            raise UserError(f"{path}: too large")
        if page.dtype != np.uint16:
            raise UserError(f"{path}: pixels of the kind {page.dtype} have no known white; save it with 8 or 16 bits")
        pixels = page.asarray()
        samples, kind, extra = page.samplesperpixel, int(page.photometric), tuple(int(x) for x in page.extrasamples)
        if page.planarconfig == 2 and samples > 1:
            pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(*pixels.shape[:2], samples)
    colors = {0: 1, 1: 1, 2: 3}.get(kind)
    if colors is None or colors > samples:
        raise UserError(f"{path}: 16-bit TIFF must be grey or RGB, found colours of the kind {page.photometric.name}")
    if kind == 0:  # white is zero
        pixels[..., :1] = 65535 - pixels[..., :1]
    return pixels[..., : colors + (1 if extra[:1] in ((1,), (2,)) else 0)]


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    across = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def _encode(pixels: Channels, kind: str, metadata: Metadata) -> bytes:
    plain = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    if kind == "PNG":
        return add_png_chunks(bytes(imagecodecs.png_encode(plain)), metadata)
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
