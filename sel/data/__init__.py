"""Image pairs: from disk, from sample photographs, from a camera model; and training batches of them."""

from sel.data.image_io import image_size, list_images, read_image, read_images, write_png
from sel.data.lowlight import darken, linear_to_srgb, srgb_to_linear
from sel.data.pairs import Pair, PairPaths, find_pairs, load_pairs
from sel.data.pipeline import batches, training_dataset
from sel.data.samples import sample_pairs

__all__ = [
    "Pair",
    "PairPaths",
    "batches",
    "darken",
    "find_pairs",
    "image_size",
    "linear_to_srgb",
    "list_images",
    "load_pairs",
    "read_image",
    "read_images",
    "sample_pairs",
    "srgb_to_linear",
    "training_dataset",
    "write_png",
]
