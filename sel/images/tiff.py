"""TIFF: which picture of a file is the photograph, and what its samples mean.

tifffile undoes compression and packing; the meaning is that of TIFF 6.0: as many bits as the file says, white or black
at zero, planes, palettes, inks, opacity that is multiplied in or not. What has no certain meaning is refused.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Num
from PIL import Image, TiffImagePlugin

from sel.errors import UserError
from sel.images.formats import RAW
from sel.images.jpeg import frame_size
from sel.images.metadata import orientation_of
from sel.images.picture import CheckSize, Color, File, Header, Pixels, rescaled, split_alpha, to_8_bits
from sel.images.pillow import from_cmyk

# Directories that are looked at; a photograph is among the first.
_MOST_PAGES = 16

# None, CCITT, LZW, JPEG, Deflate, PackBits, LZMA, Zstandard: of these the decoded size is known beforehand.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000}
_JPEG = 7

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLORS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_ASSOCIATED, _UNASSOCIATED = 1, 2

# Colours of a sensor: colour filters, and the values that they are interpolated to. The tags: DNG version, filters.
_SENSOR = {32803, 34892}
_SENSOR_TAGS = (50706, 33421, 33422)


def tiff_header(name: object, file: File, check_size: CheckSize) -> Header:
    """Read the header and the metadata of the photograph in a TIFF.

    Raises:
      UserError: if it is damaged, too large, a raw file, a preview without a picture, or of an unknown kind.
    """
    tiff = tifffile.TiffFile(file)
    first = tiff.pages.first
    page = _photograph(name, tiff)
    samples = page.samplesperpixel * max(1, page.imagedepth) * (3 if page.photometric == _PALETTE else 1)
    bits = np.max(page.bitspersample)
    size = 2 ** math.ceil(math.log2(max(8, bits))) // 8 * samples
    check_size(page.imagewidth, page.imagelength, size)
    if page.is_tiled:
        check_size(page.tilewidth, page.tilelength, size * max(1, page.tiledepth))
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        exif.endian = tiff.byteorder
        # What is said of the photograph may stand in the first directory alone.
        exif.load_from_fp(file, (first if 34665 in first.tags or 34665 not in page.tags else page).offset)
    turned = {274: page.tags.valueof(274) or first.tags.valueof(274) or 1}
    info = _info(first) | _info(page)
    decode = functools.partial(_decoded, name, file, page, info)
    return Header(page.imagelength, page.imagewidth, orientation_of(turned), exif, info, decode)


def _photograph(name: object, tiff: tifffile.TiffFile) -> Any:
    """The first picture of full size.

    A preview in colour with a picture in one channel is how cameras store what their sensor saw.
    """
    pages = list(itertools.islice(_directories(tiff), _MOST_PAGES))
    if any(int(page.photometric) in _SENSOR or any(tag in page.tags for tag in _SENSOR_TAGS) for page in pages):
        raise UserError(f"{name}: {RAW}")
    full = [page for page in pages if not _is_reduced(page)]
    if not full:
        raise UserError(f"{name}: holds a reduced preview without the picture that it shows; save the picture itself")
    if full[0] is not pages[0] and pages[0].samplesperpixel >= 3 > full[0].samplesperpixel:
        raise UserError(f"{name}: {RAW}")
    return full[0]


def _directories(tiff: tifffile.TiffFile) -> Iterator[Any]:
    for page in itertools.islice(tiff.pages, _MOST_PAGES):
        yield page
        with contextlib.suppress(Exception):  # what is damaged here isn't needed, or is missed later
            yield from itertools.islice(page.pages or (), _MOST_PAGES)


def _is_reduced(page: Any) -> bool:
    """A reduced version of another picture, or a mask: bits 0 and 2 of NewSubfileType, or 2 in the old SubfileType."""
    return bool(page.tags.valueof(254, 0) & 0b101) or page.tags.valueof(255, 1) == 2 or int(page.photometric) == 4


def _info(page: Any) -> dict[str, Any]:
    info: dict[str, Any] = {}
    with contextlib.suppress(Exception):
        info["icc_profile"] = bytes(page.tags.valueof(34675) or b"")
    with contextlib.suppress(Exception):
        packet = page.tags.valueof(700) or b""
        info["xmp"] = packet.encode() if isinstance(packet, str) else bytes(packet)
    with contextlib.suppress(Exception):
        unit = {2: 1.0, 3: 2.54}[page.tags.valueof(296, 2)]
        info["dpi"] = tuple(unit * n / d for n, d in (page.tags.valueof(282), page.tags.valueof(283)))
    return {key: value for key, value in info.items() if value}


def _decoded(name: object, file: File, page: Any, info: Mapping[str, Any]) -> Pixels:
    kind = int(page.photometric)
    _check_kind(name, page)
    if kind == _LAB or (kind == _YCBCR and page.compression != _JPEG):
        return _by_pillow(name, file, page)
    _check_segments(name, file, page)
    planes = page.asarray(squeeze=False, maxworkers=1)  # [planes, depth, height, width, samples]
    values = planes[0, 0] if planes.shape[0] == 1 else np.moveaxis(planes[:, 0, ..., 0], 0, -1)
    colors, maximum = _COLORS[kind], 2**page.bitspersample - 1
    # Black and white are decoded as truth values.
    color, alpha = _meant(page, values.astype(np.uint8) if values.dtype == bool else values, colors, maximum)
    if kind == _PALETTE:
        color, alpha = _from_palette(page, color), None if alpha is None else to_8_bits(rescaled(alpha, maximum))
        return Pixels(color, alpha)
    color, alpha = rescaled(color, maximum), None if alpha is None else rescaled(alpha, maximum)
    if kind == _CMYK:
        inks = Image.fromarray(np.ascontiguousarray(to_8_bits(color)), "CMYK")
        color, alpha = np.array(from_cmyk(inks, info.get("icc_profile"))), None if alpha is None else to_8_bits(alpha)
    return Pixels(np.ascontiguousarray(color), None if alpha is None else np.ascontiguousarray(alpha))


def _check_kind(name: object, page: Any) -> None:
    """See that the meaning of the samples is known."""
    advice = "save it with 8 or 16 bits"
    if page.sampleformat not in (1, 4) or page.dtype is None:
        found = {2: "signed", 3: "floating-point"}.get(page.sampleformat, "complex")
        raise UserError(f"{name}: {found} pixels have no known white; {advice}")
    bits = page.bitspersample
    if not isinstance(bits, int) or bits > 16:
        raise UserError(f"{name}: {bits}-bit integer pixels have no known white; {advice}")
    if page.imagedepth > 1:
        raise UserError(f"{name}: a volume of {page.imagedepth} layers, not a photograph")
    if page.compression not in _COMPRESSIONS:
        raise UserError(f"{name}: TIFF compressed by the method {_named(page.compression)} is not read; {advice}")
    kind = int(page.photometric)
    if page.samplesperpixel < _COLORS.get(kind, math.inf) or page.tags.valueof(332, 1) != 1:
        raise UserError(
            f"{name}: TIFF must be grey, RGB, palette, CMYK, YCbCr or CIELAB, found {page.samplesperpixel} samples "
            f"of the kind {_named(page.photometric)}"
        )
    if kind == _WHITE_IS_ZERO and _ASSOCIATED in page.extrasamples:
        raise UserError(f"{name}: opacity that is multiplied into values with white at zero has no certain meaning")


def _named(value: Any) -> str:
    return getattr(value, "name", str(value))


def _check_segments(name: object, file: File, page: Any) -> None:
    """See that strips or tiles are all there, and that none decodes to more than its part of the picture."""
    if page.is_contiguous:
        return
    across, down = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    # Parts that are missing would show whatever the memory held before.
    wanted = math.ceil(page.imagewidth / across) * math.ceil(page.imagelength / down) * page.shaped[0]
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(places) < wanted or any(offset <= 0 or count <= 0 for offset, count in places[:wanted]):
        raise UserError(f"{name}: damaged or incomplete image ({wanted} parts of its pixels, some are missing)")
    for offset, count in places if page.compression == _JPEG else ():
        file.seek(offset)
        width, height = frame_size(file.read(count))
        if width > across or height > max(down, page.imagelength if not page.is_tiled else 0):
            raise UserError(f"{name}: damaged image (a part of {width} x {height} pixels in one of {across} x {down})")


def _meant(
    page: Any, values: Num[np.ndarray, "h w s"], colors: int, maximum: int
) -> tuple[Num[np.ndarray, "h w c"], Num[np.ndarray, "h w 1"] | None]:
    """Colour with black at zero and not multiplied by its opacity, and opacity, if the file has one."""
    color, alpha = values[..., :colors], None
    # A file with one more sample than colours that doesn't say what it is means straight opacity, as other readers have
    # it; one that says "unspecified" means something else.
    extra = page.extrasamples or ((_UNASSOCIATED,) if page.samplesperpixel == colors + 1 else ())
    place = next((i for i, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)), None)
    if place is not None:
        alpha = values[..., colors + place : colors + place + 1]
        if extra[place] == _ASSOCIATED:
            opacity = np.maximum(alpha, 1).astype(np.uint32)
            straight = (color.astype(np.uint32) * maximum + opacity // 2) // opacity
            color = np.minimum(straight, maximum).astype(values.dtype)
    if int(page.photometric) == _WHITE_IS_ZERO:
        color = maximum - color
    return color, alpha


def _from_palette(page: Any, places: Num[np.ndarray, "h w 1"]) -> Color:
    palette = np.asarray(page.colormap)
    # Stored with 16 bits; some programs store 8-bit values as they are.
    palette = palette if palette.max() < 256 else palette >> 8
    return palette.T.astype(np.uint8)[places[..., 0]]


def _by_pillow(name: object, file: File, page: Any) -> Pixels:
    """Colours that libtiff and Little CMS convert."""
    file.seek(0)
    image = TiffImagePlugin.TiffImageFile(file)
    for number in range(_MOST_PAGES):
        image.seek(number)
        if image.tag_v2.offset == page.offset:
            break
    image.load()
    if image.mode not in ("LAB", "YCbCr", "RGB", "RGBA") or page.bitspersample != 8:
        raise UserError(f"{name}: TIFF of the kind {_named(page.photometric)} must have 8 bits")
    return split_alpha(np.array(image.convert("RGBA" if image.mode == "RGBA" else "RGB")))
