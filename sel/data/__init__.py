"""Image pairs: from disk, from sample photographs, from the camera model; and training batches of them."""

from sel.extras import needs

with needs("use"):
    from sel.data.cache import cached_images, default_cache_dir
    from sel.data.choices import KINDS, Camera, Data, Pairs, Photographs, Samples, Stored, data_kinds
    from sel.data.loading import cached_pairs
    from sel.data.pairs import Pair, PairPaths, find_pairs, load_pairs
    from sel.data.pipeline import batches, large_enough, training_dataset
    from sel.data.prepared import find_prepared
    from sel.data.samples import sample_pairs
    from sel.data.scenes import content_hash, find_same, group_scenes, near_duplicates, split_by_scene
    from sel.data.sources import DATASETS, find_dataset
    from sel.data.synthetic import bright_photographs, find_photographs, synthetic_pairs

__all__ = [
    "DATASETS",
    "KINDS",
    "Camera",
    "Data",
    "Pair",
    "PairPaths",
    "Pairs",
    "Photographs",
    "Samples",
    "Stored",
    "batches",
    "bright_photographs",
    "cached_images",
    "cached_pairs",
    "content_hash",
    "data_kinds",
    "default_cache_dir",
    "find_dataset",
    "find_pairs",
    "find_photographs",
    "find_prepared",
    "find_same",
    "group_scenes",
    "large_enough",
    "load_pairs",
    "near_duplicates",
    "sample_pairs",
    "split_by_scene",
    "synthetic_pairs",
    "training_dataset",
]
