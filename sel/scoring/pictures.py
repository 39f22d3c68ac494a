"""Pictures of results: rows of images side by side in one PNG, and a picture of the error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sel.images import write_png
from sel.images.resizing import reduced

# White in a picture of the error.
LARGEST_ERROR = 128

_TEXT, _LINE = 15, 24


def comparison(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    headings: Sequence[str] = (),
    captions: Sequence[str] = (),
    width: int = 360,
    gap: int = 6,
) -> np.ndarray:
    """One row for each scene, such as dark | enhanced | target, each image reduced to sides of `width` pixels at most.

    Args:
      rows: 8-bit images `[h, w, 3]`; those of one row have one size.
      headings: what each column is.
      captions: the text above each row.
      width: of a column and height of a row, at most.
      gap: white pixels around images.

    Returns:
      `[h, w, 3]` uint8.
    """
    lines = []
    if headings:
        widths = [reduced(image, width).shape[1] + gap for image in rows[0]]
        lines.append(_text([f"   {heading}" for heading in headings], widths))
    for number, row in enumerate(rows):
        line = np.concatenate([_framed(reduced(image, width), (gap, 0), (gap, 0)) for image in row], axis=1)
        lines += [_text([f"   {captions[number]}"], [line.shape[1]]), line] if captions else [line]
    widest = max(line.shape[1] for line in lines)
    sheet = np.concatenate([_framed(line, (0, 0), (0, widest - line.shape[1])) for line in lines])
    return _framed(sheet, (0, gap), (0, gap))


def write_comparison(path: Path, rows: Sequence[Sequence[np.ndarray]], **options: Any) -> None:
    """Write the picture of `comparison` with these options.

    Raises:
      UserError: if the file can't be written.
    """
    write_png(path, comparison(rows, **options))


def error_picture(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean over RGB of |image - reference|: black for 0, over red and yellow to white for `LARGEST_ERROR` of 255."""
    error = np.abs(image.astype(np.float32) - reference.astype(np.float32)).mean(axis=-1, keepdims=True)
    ramp = 3 * error / LARGEST_ERROR - np.arange(3)
    return (np.clip(ramp, 0, 1) * 255).round().astype(np.uint8)


def _framed(image: np.ndarray, *margins: tuple[int, int]) -> np.ndarray:
    return np.pad(image, [*margins, (0, 0)], constant_values=255)


def _text(texts: Sequence[str], widths: Sequence[int]) -> np.ndarray:
    """Words above columns of these widths; what doesn't fit is cut off."""
    line = []
    for text, width in zip(texts, widths, strict=True):
        picture = Image.new("RGB", (width, _LINE), "white")
        ImageDraw.Draw(picture).text((0, _LINE - _TEXT - 3), text, "black", ImageFont.load_default(_TEXT))
        line.append(np.asarray(picture))
    return np.concatenate(line, axis=1)
