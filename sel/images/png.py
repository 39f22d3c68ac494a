"""PNG: pixels and metadata are read apart, so that no trouble with metadata can hide good pixels.

The decoder, libpng, sees only the chunks that pixels depend on. Pillow parses the others one by one, and a chunk with
which it has trouble is left out.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import imagecodecs
from PIL import PngImagePlugin

from sel.errors import UserError
from sel.images.metadata import Metadata, exif_of, orientation_of
from sel.images.picture import CheckSize, File, Header, Pixels, split_alpha

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33
_END = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}

# Of these Pillow knows more than `Metadata` keeps; it is asked for the first few.
_METADATA = (b"iCCP", b"pHYs", b"eXIf", b"iTXtXML:com.adobe.xmp\0", b"tEXtRaw profile type ", b"zTXtRaw profile type ")
_MOST_CHUNKS = 32
_MOST_METADATA = 2**26


def png_header(name: object, file: File, check_size: CheckSize) -> Header:
    """Read the header and the metadata of a PNG.

    Raises:
      UserError: if it is damaged or too large.
    """
    head = file.read(_HEADER_END)
    if len(head) < _HEADER_END or head[12:16] != b"IHDR":
        raise UserError(f"{name}: damaged image (a PNG without a header)")
    width, height, bits, color = struct.unpack(">IIBB", head[16:26])
    pixel_bytes = _SAMPLES.get(color, 4) * (2 if bits == 16 else 1)
    check_size(width, height, pixel_bytes)
    # Pixels that no compression helps take little more than they do decoded; what goes on beyond is none.
    content = memoryview(head + file.read(2 * width * height * pixel_bytes + _MOST_METADATA))
    info: dict[Any, Any] = {}
    parts = [chunk for chunk in _chunks(content) if bytes(chunk[4:30]).startswith(_METADATA)]
    for part in parts[:_MOST_CHUNKS]:
        with contextlib.suppress(Exception):
            info |= PngImagePlugin.PngImageFile(io.BytesIO(head + part + _END)).info
    exif = exif_of(info)
    return Header(height, width, orientation_of(exif), exif, info, lambda: _decoded(name, content))


def add_png_metadata(png: bytes, metadata: Metadata) -> bytes:
    """Put metadata behind the header of a PNG, in chunks that Pillow encodes."""
    text = PngImagePlugin.PngInfo()
    if metadata.xmp:
        text.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    options = {"icc_profile": metadata.icc, "exif": metadata.exif, "dpi": metadata.dpi}
    carrier = io.BytesIO()
    PngImagePlugin.Image.new("L", (1, 1)).save(carrier, "PNG", pnginfo=text, **{k: v for k, v in options.items() if v})
    added = [chunk for chunk in _chunks(memoryview(carrier.getvalue())) if bytes(chunk[4:30]).startswith(_METADATA)]
    return png[:_HEADER_END] + b"".join(added) + png[_HEADER_END:]


def _chunks(content: memoryview) -> Iterator[memoryview]:
    """Whole chunks, with length, name and checksum; the last may be cut short."""
    place = len(_SIGNATURE)
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4]) if len(content) - place >= 4 else (0,)
        chunk = content[place : place + 12 + length]
        yield chunk
        if bytes(chunk[4:8]) == b"IEND":
            return
        place += 12 + length


def _decoded(name: object, content: memoryview) -> Pixels:
    # Critical chunks begin with a capital letter; of the others opacity alone belongs to the pixels.
    needed = [chunk for chunk in _chunks(content) if bytes(chunk[4:5]).isupper() or bytes(chunk[4:8]) == b"tRNS"]
    for chunk in needed:
        if bytes(chunk[4:8]) == b"tRNS" and zlib.crc32(chunk[4:-4]).to_bytes(4, "big") != bytes(chunk[-4:]):
            raise UserError(f"{name}: damaged image (the checksum of its opacity is wrong)")
    pixels = imagecodecs.png_decode(b"".join([_SIGNATURE, *needed]))
    whole = needed and bytes(needed[-1][4:8]) == b"IEND"
    found = split_alpha(pixels[..., None] if pixels.ndim == 2 else pixels)
    return found if whole else Pixels(found.color, found.alpha, "its end is missing; the pixels are whole")
