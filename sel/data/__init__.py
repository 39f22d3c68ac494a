"""Image pairs: from disk, from sample photographs, from a camera model; and training batches of them."""

from sel.data.cache import cached_images, default_cache_dir
from sel.data.image_io import image_size, list_images, read_image, read_images, write_png
from sel.data.jpeg import jpeg
from sel.data.loading import cached_pairs
from sel.data.lowlight import darken, linear_to_srgb, sample_camera, srgb_to_linear
from sel.data.pairs import Pair, PairPaths, find_pairs, load_pairs
from sel.data.pipeline import batches, large_enough, training_dataset
from sel.data.prepared import find_prepared
from sel.data.samples import sample_pairs
from sel.data.scenes import content_hash, find_same, group_scenes, near_duplicates, split_by_scene
from sel.data.sources import DATASETS, find_dataset
from sel.data.storage import ImageSource, Report, fingerprint, read_bytes
from sel.data.synthetic import bright_photographs, find_photographs, synthetic_pairs

__all__ = [
    "DATASETS",
    "ImageSource",
    "Pair",
    "PairPaths",
    "Report",
    "batches",
    "bright_photographs",
    "cached_images",
    "cached_pairs",
    "content_hash",
    "darken",
    "default_cache_dir",
    "find_dataset",
    "find_pairs",
    "find_photographs",
    "find_prepared",
    "find_same",
    "fingerprint",
    "group_scenes",
    "image_size",
    "jpeg",
    "large_enough",
    "linear_to_srgb",
    "list_images",
    "load_pairs",
    "near_duplicates",
    "read_bytes",
    "read_image",
    "read_images",
    "sample_camera",
    "sample_pairs",
    "split_by_scene",
    "srgb_to_linear",
    "synthetic_pairs",
    "training_dataset",
    "write_png",
]
