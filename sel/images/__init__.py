"""Images on disk, in folders, archives and prepared sets: reading, writing, and what a file says of itself."""

from sel.images.image_io import image_size, list_images, read_image, read_images, write_png
from sel.images.photographs import Photograph, read_photograph, write_photograph
from sel.images.storage import ImageSource, Report, fingerprint, read_bytes

__all__ = [
    "ImageSource",
    "Photograph",
    "Report",
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
