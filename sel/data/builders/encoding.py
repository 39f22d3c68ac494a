"""Images as any reader of TFDS decodes them to the same pixels: 8-bit RGB in PNG or JPEG, upright, opaque."""

import io

import numpy as np
from PIL import ExifTags, Image

from sel.images.reading import RGB, read_image
from sel.images.storage import ImageSource, read_bytes


def encoded(source: ImageSource) -> tuple[bytes, RGB]:
    """Decode an image, and keep its bytes if they are plain; encode anything else as PNG, without loss.

    Args:
      source: an image.

    Returns:
      Bytes of a PNG or JPEG file, and the pixels that `read_image` makes of them and of `source` alike.

    Raises:
      UserError: if the image cannot be read.
    """
    pixels, content = read_image(source), read_bytes(source)
    return (content if _is_plain(content, pixels) else _png(pixels)), pixels


def _is_plain(content: bytes, pixels: RGB) -> bool:
    """Whether any other reader gets the same pixels."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            # Of a PNG the orientation may stand behind the pixels.
            image.load()
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            if image.mode != "RGB" or image.has_transparency_data or turned:
                return False
            # Byte 24 of a PNG is its depth: of 16 bits Pillow keeps 8 and other readers keep all.
            return (image.format == "JPEG" or content[24] == 8) and np.array_equal(np.asarray(image), pixels)
    except Exception:  # of another format, or with metadata that stop other readers
        return False


def _png(pixels: RGB) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()
