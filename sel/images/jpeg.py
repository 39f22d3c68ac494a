"""JPEG files as far as their markers tell: the size of the picture, and whether a file without an end is whole."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import JpegImagePlugin

_END = b"\xff\xd9"
_SCAN = 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def frame_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) of the first frame, (0, 0) if there is none."""
    for marker, segment in _segments(content):
        if marker in _FRAMES and len(segment) >= 5:
            return int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[1:3], "big")
    return 0, 0


def completed(content: bytes) -> bytes | None:
    """Add the end marker to a JPEG that lacks nothing else.

    Whether anything else is missing shows in what the decoder makes of more data at the end: if the pixels change with
    it, they were not all there. A file of several scans must also have told every coefficient to its last bit.

    Args:
      content: the file.

    Returns:
      The file with its end marker; None if it lacks more than that.
    """
    content = content.rstrip(b"\xff")
    if not _all_coefficients(content):
        return None
    # With the marks at which a decoder resumes, in case the data end between two of them.
    fillings = [b"".join(bytes([byte] * 64) + bytes([0xFF, 0xD0 + i % 8]) for i in range(16)) for byte in (0x55, 0xA6)]
    pictures = []
    for filling in (b"", *fillings):
        with JpegImagePlugin.JpegImageFile(io.BytesIO(content + filling + _END)) as image:
            pictures.append(np.asarray(image))
    whole = all(np.array_equal(pictures[0], other) for other in pictures[1:])
    return content + _END if whole else None


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers with what belongs to them; coded data are passed over."""
    place = 2
    while 0 <= place < len(content) - 3:
        marker = content[place + 1]
        if content[place] != 0xFF or marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:
            place = content.find(b"\xff", place + 1)
            continue
        if marker == 0xD9:
            return
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        yield marker, content[place + 4 : place + 2 + length]
        place += 2 + length


def _all_coefficients(content: bytes) -> bool:
    """Whether the scans cover all 64 coefficients of every component down to the last bit."""
    missing: set[tuple[int, int]] = set()
    known = False
    for marker, segment in _segments(content):
        if marker in _FRAMES and not known:
            known = True
            missing = {(segment[6 + 3 * i], k) for i in range(segment[5]) for k in range(64)}
        elif marker == _SCAN:
            count = segment[0]
            first, last, bits = segment[1 + 2 * count], segment[2 + 2 * count], segment[3 + 2 * count]
            if bits & 15 == 0:
                missing -= {(segment[1 + 2 * i], k) for i in range(count) for k in range(first, last + 1)}
    return known and not missing
