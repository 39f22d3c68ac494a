"""Pairs from good photographs alone: each is darkened by the camera model, several times, with parameters of its own.

What is made lies in the cache, so that training reads it as fast as real pairs.
"""

import functools
import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt8

from sel.camera.lowlight import darken, sample_camera
from sel.data.cache import MAX_BYTES, Recipe, cached_images, known_state
from sel.data.pairs import Pair
from sel.errors import UserError
from sel.images.decoding import image_size
from sel.images.listing import natural_order
from sel.images.reading import RGB, Progress, read_image
from sel.images.resizing import reduced, reduced_size
from sel.images.storage import ImageSource, OnProblem, image_tree

# Sizes are rounded up to multiples of this before JAX sees them: it compiles for each anew.
_TILE = 128


def find_photographs(root: str | Path, *, report: OnProblem | None = None) -> dict[str, ImageSource]:
    """Find all images of a folder, of the folders in it, or of a zip archive.

    Args:
      root: where they are.
      report: told of what is passed over; without it the first raises.

    Returns:
      Images by their path below the root, numbers in names in numerical order. Names lack their suffix, but for
      those that differ in it alone.

    Raises:
      UserError: if there is none.
    """
    tree = image_tree(root, report=report)
    below = {path: PurePath(*path.parts[1:]) for path in sorted(tree, key=lambda path: natural_order(str(path)))}
    claims = Counter(path.with_suffix("") for path in below.values())
    photographs = {
        str(name if claims[name.with_suffix("")] > 1 else name.with_suffix("")): tree[path]
        for path, name in below.items()
    }
    if not photographs:
        raise UserError(f"{root}: holds no image")
    return photographs


def bright_photographs(
    photographs: Mapping[str, ImageSource],
    folder: str | Path | None,
    *,
    longest_side: int = 1024,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
    report: OnProblem | None = None,
) -> dict[str, RGB]:
    """Read photographs through the cache, large ones reduced, which also averages out noise of their own.

    Args:
      photographs: what `find_photographs` found.
      folder: the cache, see `cached_images`, as the next three.
      longest_side: pixels of the longer side of an image; larger ones are reduced to it.
      max_bytes: most that the cache may hold.
      progress: called as `progress(done, total)`.
      report: called with each problem of a file, which is then left out; without it the first raises.

    Returns:
      Images by name, read-only.

    Raises:
      UserError: if a file cannot be read, nothing is left, or as `cached_images`.
    """
    recipes = [_reduction(source, longest_side) for source in photographs.values()]
    images = cached_images(recipes, folder, max_bytes=max_bytes, progress=progress, report=report)
    kept = {name: image for name, image in zip(photographs, images, strict=True) if image is not None}
    if photographs and not kept:
        raise UserError(f"none of {len(photographs)} photographs can be used, the first is {next(iter(photographs))}")
    return kept


def synthetic_pairs(
    photographs: Mapping[str, RGB],
    folder: str | Path | None,
    *,
    darkenings: int = 4,
    seed: int = 0,
    camera: Mapping[str, Any] | None = None,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> tuple[Pair, ...]:
    """Darken photographs; what an image becomes depends on its pixels, its name, `seed` and `camera` alone.

    Args:
      photographs: bright images by name.
      folder: the cache, see `cached_images`, as the last two.
      darkenings: pairs per photograph, at least 1.
      seed: seed of parameters and noise.
      camera: options of `sample_camera`.
      max_bytes: most that the cache may hold.
      progress: called as `progress(done, total)`.

    Returns:
      Pairs NAME-0, NAME-1, ... of each photograph.

    Raises:
      UserError: as `cached_images`.
      ValueError: if `darkenings` is below 1, or as `sample_camera`.
    """
    if darkenings < 1:
        raise ValueError(f"darkenings must be at least 1, found {darkenings}")
    options = dict(camera or {})
    sample_camera(jax.random.key(0), **options)  # refuses what it must before any thread starts
    names, recipes = [], []
    for name, x0 in photographs.items():
        content = hashlib.sha256(x0.tobytes()).hexdigest()
        for i in range(darkenings):
            key = f"darkened {content} {name} {i} {seed} {sorted(options.items())}"
            make = functools.partial(_darkened, x0, zlib.crc32(name.encode()), i, seed, options)
            recipes.append(Recipe(key, functools.partial(np.shape, x0[..., 0]), make))
            names.append((f"{name}-{i}", x0))
    images = cached_images(recipes, folder, max_bytes=max_bytes, progress=progress)
    return tuple(Pair(name, mu, x0) for (name, x0), mu in zip(names, images, strict=True) if mu is not None)


def _darkened(x0: RGB, name: int, number: int, seed: int, options: Mapping[str, Any]) -> RGB:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), name), number)
    key_camera, key_noise = jax.random.split(key)
    height, width = x0.shape[:2]
    padded = np.pad(x0, [(0, -height % _TILE), (0, -width % _TILE), (0, 0)], mode="edge")
    return np.asarray(_photographed(key_noise, padded, sample_camera(key_camera, **options)))[:height, :width]


@jax.jit
def _photographed(key: PRNGKeyArray, x0: UInt8[Array, "h w 3"], camera: dict[str, Array]) -> UInt8[Array, "h w 3"]:
    return jnp.round(255 * darken(key, x0.astype(jnp.float32) / 255, **camera)).astype(jnp.uint8)


def _reduction(source: ImageSource, longest_side: int) -> Recipe:
    """The recipe of an image with a bounded longer side."""

    def size() -> tuple[int, int]:
        return reduced_size(*image_size(source), longest_side)

    def make() -> RGB:
        return reduced(read_image(source), longest_side)

    return Recipe(f"reduced {longest_side} {known_state(source)}", size, make)
