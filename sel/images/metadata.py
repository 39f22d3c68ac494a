"""What a photograph says of itself beside its pixels: EXIF, XMP, colour profile, resolution."""

import contextlib
import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
      exif: as `PIL.Image.Exif` reads and writes it, without orientation and preview; b"" if there is none.
      xmp: a packet of XMP, or b"".
      icc: a colour profile, or b"".
      dpi: resolution in pixels per inch, or None.
    """

    exif: bytes = b""
    xmp: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None

    def fitting(self, channels: int) -> "Metadata":
        """Without a colour profile of other colours, as that of CMYK is once these have become RGB."""
        wanted = b"GRAY" if channels == 1 else b"RGB "
        return replace(self, icc=b"") if self.icc and self.icc[16:20] != wanted else self


def exif_of(info: Mapping[Any, Any]) -> Image.Exif:
    """EXIF among what Pillow knows of a file, with the orientation that XMP may hold instead; empty if damaged."""
    # Formats' own ways to find it decode the whole image; this one takes what is given.
    carrier = Image.new("L", (1, 1))
    carrier.info = {**info}
    with contextlib.suppress(Exception):
        return carrier.getexif()
    return Image.Exif()


def orientation_of(exif: Mapping[int, Any]) -> int:
    """Orientation, 1 to 8; 1 if there is none that makes sense."""
    with contextlib.suppress(Exception):
        found = int(exif.get(Base.Orientation, 1))
        return found if 1 <= found <= 8 else 1
    return 1


def read_metadata(exif: Image.Exif, info: Mapping[Any, Any], shape: tuple[int, ...]) -> Metadata:
    """Keep what can be written again; what is damaged is left out.

    Args:
      exif: as Pillow represents it.
      info: what else Pillow knows: `icc_profile`, `xmp` or `XML:com.adobe.xmp`, `dpi`.
      shape: (height, width) of the upright pixels, which EXIF repeats.

    Returns:
      The metadata.
    """
    kept, xmp, icc, dpi = b"", b"", b"", None
    with contextlib.suppress(Exception):
        kept = _kept_exif(exif, shape)
    with contextlib.suppress(Exception):
        packet = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
        packet = packet.encode() if isinstance(packet, str) else bytes(packet).rstrip(b"\0")
        # The pixels are upright now.
        xmp = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[1-8]", rb"\g<1>1", packet)
    with contextlib.suppress(Exception):
        icc = bytes(info.get("icc_profile") or b"")
    with contextlib.suppress(Exception):
        x, y = (float(value) for value in info["dpi"])
        dpi = (x, y) if 1 <= x <= 1e5 and 1 <= y <= 1e5 else None
    return Metadata(kept, xmp, icc, dpi)


def _kept_exif(found: Image.Exif, shape: tuple[int, ...]) -> bytes:
    kept = Image.Exif()
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
