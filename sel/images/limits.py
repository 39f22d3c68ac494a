"""How large an image may be, decided from its header before anything is decoded."""

from sel.errors import UserError

# Millions of pixels that are read unless a caller allows more; about twice Pillow's own limit, at which it warns.
MAX_MEGAPIXELS = 180.0

# Decoded bytes of a pixel: four channels of 16 bits.
_BYTES = 8

# Most encoded bytes that are held at a time. Photographs are smaller: a member of an archive that claims to be
# larger is made to fill the memory.
MAX_MEMBER_BYTES = 2**28


class TooLargeError(UserError):
    """An image has more pixels than the caller allows."""


def check_size(name: object, width: int, height: int, bytes_per_pixel: int, max_megapixels: float) -> None:
    """Refuse an image whose decoded form would be too large.

        width * height <= 10^6 max_megapixels   and   width * height * bytes_per_pixel <= 8 * 10^6 max_megapixels

    Args:
      name: the image, for the message.
      width: pixels of a row, as the header claims.
      height: rows.
      bytes_per_pixel: decoded bytes of all samples and planes at one place of the image.
      max_megapixels: largest number of pixels, in millions.

    Raises:
      TooLargeError: if it is larger.
      UserError: if it has no pixels.
    """
    if width < 1 or height < 1:
        raise UserError(f"{name}: damaged image ({width} x {height} pixels)")
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise TooLargeError(
            f"{name}: too large, {width} x {height} pixels are {megapixels:.4g} megapixels, "
            f"above the limit of {max_megapixels:g}"
        )
    if megapixels * bytes_per_pixel > max_megapixels * _BYTES:
        raise TooLargeError(
            f"{name}: too large, {width} x {height} pixels of {bytes_per_pixel} bytes each, "
            f"above the limit of {max_megapixels * _BYTES:g} million bytes"
        )
