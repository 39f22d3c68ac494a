"""Pixels of one picture, whatever file they come from."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8, UInt16
from PIL import Image

Color = UInt8[np.ndarray, "h w c"] | UInt16[np.ndarray, "h w c"]
Alpha = UInt8[np.ndarray, "h w 1"] | UInt16[np.ndarray, "h w 1"]

# A file that is open for reading.
File = io.BytesIO | io.BufferedReader

# Called with (width, height, decoded bytes of a pixel) as soon as a header tells them; refuses what is too large.
CheckSize = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Pixels:
    """What a decoder gives.

    Attributes:
      color: one channel (grey) or three, 0 to 255 or 65535, not multiplied by the opacity.
      alpha: opacity of the same type, or None.
      note: what is wrong with the file although its pixels are whole, or "".
    """

    color: Color
    alpha: Alpha | None = None
    note: str = ""


@dataclass(frozen=True)
class Header:
    """What a file says before it is decoded.

    Attributes:
      height: rows as stored, before the orientation is applied.
      width: columns as stored.
      orientation: as in EXIF, 1 to 8.
      exif: as Pillow represents it.
      info: metadata under Pillow's names: `icc_profile`, `xmp`, `dpi`.
      decode: decodes the pixels, as stored; the file is open.
    """

    height: int
    width: int
    orientation: int
    exif: Image.Exif
    info: Mapping[Any, Any]
    decode: Callable[[], Pixels]


def split_alpha(channels: Color) -> Pixels:
    """Pixels of 1 to 4 channels: grey, grey and opacity, colour, colour and opacity."""
    if channels.shape[-1] in (2, 4):
        return Pixels(channels[..., :-1], channels[..., -1:])
    return Pixels(channels)


def rescaled(values: Num[np.ndarray, "*shape"], maximum: int) -> Num[np.ndarray, "*shape"]:
    """Scale 0..maximum to the whole range of 8 bits, or of 16 bits if `maximum` is above 255, to the nearest level."""
    white, dtype = (255, np.uint8) if maximum <= 255 else (65535, np.uint16)
    if maximum == white:
        return values.astype(dtype, copy=False)
    return ((values.astype(np.uint32) * white + maximum // 2) // maximum).astype(dtype)


def to_8_bits(values: Num[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """8 bits of 8 or 16, to the nearest level."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def upright(pixels: Num[np.ndarray, "_ _ c"], orientation: int) -> Num[np.ndarray, "_ _ c"]:
    """Undo an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    across = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])
