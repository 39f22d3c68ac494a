"""Images on disk, in folders, archives and prepared sets: reading, writing, and what a file says of itself."""

from sel.extras import needs

with needs("use"):
    from sel.images.decoding import image_size, read_photograph
    from sel.images.limits import MAX_MEGAPIXELS, TooLargeError
    from sel.images.listing import list_images
    from sel.images.photographs import Photograph
    from sel.images.reading import read_image, read_images
    from sel.images.storage import ImageSource, OnProblem, fingerprint, read_bytes
    from sel.images.writing import write_photograph, write_png

__all__ = [
    "MAX_MEGAPIXELS",
    "ImageSource",
    "OnProblem",
    "Photograph",
    "TooLargeError",
    "fingerprint",
    "image_size",
    "list_images",
    "read_bytes",
    "read_image",
    "read_images",
    "read_photograph",
    "write_photograph",
    "write_png",
]
