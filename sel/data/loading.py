"""Pairs of files as training takes them: decoded once, through the cache."""

from collections.abc import Sequence
from pathlib import Path

from sel.data.cache import MAX_BYTES, Recipe, cached_images, known_state
from sel.data.pairs import Pair, PairPaths, join_images
from sel.images.decoding import image_size
from sel.images.reading import Progress, read_image
from sel.images.storage import ImageSource, OnProblem


def cached_pairs(
    paths: Sequence[PairPaths],
    folder: str | Path | None,
    *,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
    report: OnProblem | None = None,
) -> tuple[Pair, ...]:
    """Give pairs as `load_pairs` does, with pixels that are mapped from a cache and decoded only if they are not there.

    Args:
      paths: what `find_pairs` or `find_dataset` found.
      folder: the cache, made if it is missing; None is `default_cache_dir()`.
      max_bytes: most that the folder may hold, see `cached_images`.
      progress: called as `progress(images done, images in all)`.
      report: called with each problem of a file, whose pair is then left out. Without it the first is raised.

    Returns:
      The pairs, in the same order, their images read-only.

    Raises:
      UserError: if a file cannot be read, a pair's sizes differ, nothing is left, or as `cached_images`.
    """
    recipes = [decoding(source) for pair in paths for source in (pair.low, pair.high)]
    images = cached_images(recipes, folder, max_bytes=max_bytes, progress=progress, report=report)
    return join_images(paths, images, report=report)


def decoding(source: ImageSource) -> Recipe:
    """Return the recipe of an image as it is stored."""
    return Recipe(f"decoded {known_state(source)}", lambda: image_size(source), lambda: read_image(source))
