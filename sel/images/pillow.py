"""Every format but PNG and TIFF, by Pillow. Its plugins are called by name, so that no other format is ever opened."""

import contextlib
import io
from collections.abc import Callable

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PpmImagePlugin,
    WebPImagePlugin,
)

from sel.errors import UserError
from sel.extras import install
from sel.images.jpeg import completed
from sel.images.limits import MAX_MEMBER_BYTES
from sel.images.metadata import exif_of, orientation_of
from sel.images.picture import CheckSize, File, Header, Pixels, split_alpha

_PLUGINS: dict[str, Callable[[File], Image.Image]] = {
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_BYTES = {"1": 1, "L": 1, "P": 3, "I;16": 2, "I": 4, "F": 4, "LA": 2}
_GREY = ("1", "L", "LA", "La")


def pillow_header(name: object, kind: str, file: File, check_size: CheckSize) -> Header:
    """Read the header and the metadata of an image by Pillow.

    Raises:
      UserError: if it is too large, or needs a package that is missing.
    """
    if kind == "WEBP":  # its decoder makes room for the picture before it tells the size
        check_size(*_webp_size(file.read(30)), 4)
        file.seek(0)
    image = _heif(name, file) if kind == "HEIF" else _PLUGINS[kind](file)
    check_size(*image.size, _BYTES.get(image.mode, 4))
    exif = exif_of(image.info)

    def decode() -> Pixels:
        if kind != "JPEG":
            return _pixels(name, image)
        try:
            return _pixels(name, image)
        except OSError:
            file.seek(0)
            whole = completed(file.read(MAX_MEMBER_BYTES))
            if whole is None:
                raise
            found = _pixels(name, JpegImagePlugin.JpegImageFile(io.BytesIO(whole)))
            return Pixels(found.color, found.alpha, "its end marker is missing; the pixels are whole")

    return Header(image.height, image.width, orientation_of(exif), exif, image.info, decode)


def from_cmyk(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert inks to sRGB, through their colour profile if there is a good one."""
    with contextlib.suppress(Exception):
        inks = ImageCms.getOpenProfile(io.BytesIO(profile or b""))
        converted = ImageCms.profileToProfile(image, inks, ImageCms.createProfile("sRGB"), outputMode="RGB")
        if converted is not None:
            return converted
    return image.convert("RGB")


def _pixels(name: object, image: Image.Image) -> Pixels:
    image.load()
    if image.mode == "F":
        raise UserError(f"{name}: floating-point pixels have no known white; save it with 8 or 16 bits")
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # grey of 16 bits, or of a maximum that Pillow has scaled to them
        return Pixels(np.asarray(image).astype(np.uint16)[..., None])
    if image.mode == "CMYK":
        image = from_cmyk(image, image.info.get("icc_profile"))
    grey = image.mode in _GREY
    wanted = ("LA" if grey else "RGBA") if image.has_transparency_data else ("L" if grey else "RGB")
    channels = np.array(image.convert(wanted))
    return split_alpha(channels[..., None] if channels.ndim == 2 else channels)


def _heif(name: object, file: File) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UserError(
            f"{name}: reading HEIC needs the package pillow-heif: {install('heif')}, or save it as JPEG"
        ) from None
    return HeifImageFile(file)


def _webp_size(head: bytes) -> tuple[int, int]:
    """(width, height) of a WebP; (0, 0) if its first chunk is of no known kind. Source: RFC 9649."""

    def number(first: int, last: int) -> int:
        return int.from_bytes(head[first:last], "little")

    kind = head[12:16]
    if kind == b"VP8X":
        return number(24, 27) + 1, number(27, 30) + 1
    if kind == b"VP8L":
        return (number(21, 25) & 0x3FFF) + 1, (number(21, 25) >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF
    return 0, 0
