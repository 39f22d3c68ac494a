"""Images as any reader of TFDS decodes them to the same pixels: 8-bit RGB in PNG or JPEG, upright, opaque."""

import io

from PIL import ExifTags, Image

from sel.images.image_io import RGB, read_image
from sel.images.storage import ImageSource, read_bytes


def encoded(source: ImageSource) -> tuple[bytes, RGB]:
    """Decode an image, and keep its bytes if they are plain; encode anything else as PNG, without loss.

    Args:
        source: An image.

    Returns:
        Bytes of a PNG or JPEG file, and the pixels that `read_image` makes of them and of `source` alike.

    Raises:
        UserError: The image cannot be read.
    """
    pixels, content = read_image(source), read_bytes(source)
    return (content if _is_plain(content) else _png(pixels)), pixels


def _is_plain(content: bytes) -> bool:
    with Image.open(io.BytesIO(content)) as image:
        # Of a PNG the orientation may stand behind the pixels: they are read already, and are in memory.
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if image.mode != "RGB" or image.has_transparency_data or orientation != 1:
            return False
        # Byte 24 of a PNG is its depth: of 16 bits Pillow keeps 8 and other readers keep all.
        return image.format == "JPEG" or (image.format == "PNG" and content[24] == 8)


def _png(pixels: RGB) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=1)
    return file.getvalue()
