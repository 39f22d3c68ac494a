"""What a photograph says of itself beside its pixels: EXIF, XMP, colour profile, resolution."""

import contextlib
import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import tifffile
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import IFD, Base

# Tags of the first directory that describe the photograph; others describe how a file stores it.
_DESCRIPTIVE = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Rating,
    Base.RatingPercent,
    Base.Copyright,
    Base.XPTitle,
    Base.XPComment,
    Base.XPAuthor,
    Base.XPKeywords,
    Base.XPSubject,
)
_DIRECTORIES = (IFD.Exif, IFD.GPSInfo)
_PIXELS = {Base.ExifImageWidth: 1, Base.ExifImageHeight: 0}


@dataclass(frozen=True)
class Metadata:
    """What is kept.

    Attributes:
        exif: As `PIL.Image.Exif` reads and writes it, without orientation and preview; b"" if there is none.
        xmp: A packet of XMP, or b"".
        icc: A colour profile, or b"".
        dpi: Resolution in pixels per inch, or None.
    """

    exif: bytes = b""
    xmp: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None


def read_metadata(image: Image.Image, shape: tuple[int, ...]) -> Metadata:
    """Read what an image of any format says; what is damaged is left out.

    Args:
        image: An image that is loaded.
        shape: (height, width) of its pixels when upright, which EXIF repeats.

    Returns:
        What can be written again.
    """
    exif, xmp, icc, dpi = b"", b"", b"", None
    with contextlib.suppress(Exception):
        exif = _kept_exif(image, shape)
    with contextlib.suppress(Exception):
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        packet = packet.encode() if isinstance(packet, str) else bytes(packet).rstrip(b"\0")
        # The pixels are upright now.
        xmp = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[1-8]", rb"\g<1>1", packet)
    with contextlib.suppress(Exception):
        icc = bytes(image.info.get("icc_profile") or b"")
    with contextlib.suppress(Exception):
        x, y = (float(value) for value in image.info["dpi"])
        dpi = (x, y) if 1 <= x <= 1e5 and 1 <= y <= 1e5 else None
    return Metadata(exif, xmp, icc, dpi)


def _kept_exif(image: Image.Image, shape: tuple[int, ...]) -> bytes:
    found, kept = Image.Image.getexif(image), Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in found:
            # Pillow reads text as Latin-1 and writes it as ASCII; most is UTF-8.
            kept[tag] = found[tag].encode("latin-1") if isinstance(found[tag], str) else found[tag]
    first = kept.tobytes() if len(kept) else b""
    for directory in _DIRECTORIES:
        entries = dict(found.get_ifd(directory))
        entries.pop(IFD.Interop, None)
        entries |= {tag: shape[axis] for tag, axis in _PIXELS.items() if directory == IFD.Exif and tag in entries}
        if entries:
            kept.get_ifd(directory).update(entries)
    with contextlib.suppress(Exception):  # one damaged entry of many
        return kept.tobytes() if len(kept) or any(kept.get_ifd(directory) for directory in _DIRECTORIES) else b""
    return first


def pillow_options(metadata: Metadata, kind: str) -> dict[str, Any]:
    """Arguments of Pillow's `save` that write metadata into a JPEG or WEBP."""
    options: dict[str, Any] = {"exif": metadata.exif, "icc_profile": metadata.icc, "xmp": metadata.xmp}
    options |= {"dpi": metadata.dpi} if kind == "JPEG" else {}
    return {name: value for name, value in options.items() if value}


def add_png_chunks(png: bytes, metadata: Metadata) -> bytes:
    """Put metadata behind the header of a PNG, which comes first and has a fixed length."""
    chunks = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        # Pixels per metre.
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in metadata.dpi), 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    coded = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    header = 33
    return png[:header] + b"".join(coded) + png[header:]


def tiff_options(metadata: Metadata) -> dict[str, Any]:
    """Arguments of tifffile's `imwrite` that write metadata, for `add_tiff_directories` to complete."""
    exif = _loaded(metadata)
    extra: list[tuple[int, Any, int, Any, bool]] = []
    for tag, value in exif.items():
        if isinstance(value, str):
            extra.append((tag, "s", 0, value.encode("latin-1", "replace") + b"\0", True))
        elif isinstance(value, bytes):
            extra.append((tag, "B", len(value), value, True))
        elif isinstance(value, int):
            extra.append((tag, "H", 1, value, True))
    # Of these tags tifffile writes none itself: their places are kept by the next ones, which have no meaning.
    extra += [(directory + 1, "I", 1, 0, True) for directory in _DIRECTORIES if exif.get_ifd(directory)]
    if metadata.xmp:
        extra.append((Base.XMLPacket, "B", len(metadata.xmp), metadata.xmp, True))
    options: dict[str, Any] = {"extratags": extra, "software": False, "metadata": None, "byteorder": "<"}
    if metadata.icc:
        options["iccprofile"] = metadata.icc
    if metadata.dpi:
        options |= {"resolution": metadata.dpi, "resolutionunit": "INCH"}
    return options


def add_tiff_directories(tiff: bytes, metadata: Metadata) -> bytes:
    """Append the directories of EXIF and GPS to a little-endian TIFF and let its first directory point to them."""
    exif, content = _loaded(metadata), bytearray(tiff)
    with tifffile.TiffFile(io.BytesIO(tiff)) as file:
        tags = {tag.code: tag for tag in file.pages.first.tags}
    for directory in _DIRECTORIES:
        entries = exif.get_ifd(directory)
        if not entries:
            continue
        written = TiffImagePlugin.ImageFileDirectory_v2(group=directory)
        for tag, value in entries.items():
            written[tag] = value
        content += b"\0" * (len(content) % 2)
        place = tags[directory + 1]
        struct.pack_into("<H", content, place.offset, directory)
        struct.pack_into("<I", content, place.valueoffset, len(content))
        content += written.tobytes(len(content))
    return bytes(content)


def _loaded(metadata: Metadata) -> Image.Exif:
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
    return exif
