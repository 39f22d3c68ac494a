"""Paired photographs on disk, laid out as LOL: `root/low/NAME.*` (degraded) and `root/high/NAME.*` (clean)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sel.data.image_io import Progress, image_size, list_images, read_images
from sel.errors import UserError


@dataclass(frozen=True)
class PairPaths:
    """Two files of one scene: `low` the low-light photograph, `high` the reference."""

    name: str
    low: Path
    high: Path


@dataclass(frozen=True, eq=False)
class Pair:
    """Two decoded images of one scene, equal in shape: `mu` the low-light image, `x0` the clean one; 8-bit sRGB."""

    name: str
    mu: UInt8[np.ndarray, "h w 3"]
    x0: UInt8[np.ndarray, "h w 3"]


def find_pairs(root: str | Path) -> tuple[PairPaths, ...]:
    """Match the images of `root/low` and `root/high` by file name without suffix, never by order.

    Sizes are compared from the files' headers; nothing is decoded.

    Args:
        root: The folder that holds `low/` and `high/`.

    Returns:
        The pairs, in natural order of their names.

    Raises:
        UserError: A folder is missing or empty, an image has no partner, two images of a folder share a name, or the
            two images of a pair differ in size; the message names the files.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    missing = [side for side in ("low", "high") if not (root / side).is_dir()]
    if missing:
        found = _several(sorted(entry.name for entry in root.iterdir())) or "nothing"
        raise UserError(f"{root}: must hold the folders low/ and high/, missing {' and '.join(missing)}, found {found}")
    low, high = _by_stem(root / "low"), _by_stem(root / "high")
    problems = [
        f"{len(alone)} in {here}/ without a partner in {there}/ ({_several(alone)})"
        for here, there, alone in (
            ("low", "high", [name for name in low if name not in high]),
            ("high", "low", [name for name in high if name not in low]),
        )
        if alone
    ]
    if problems:
        raise UserError(f"{root}: images are paired by name: {'; '.join(problems)}")
    pairs = tuple(PairPaths(name, low[name], high[name]) for name in low)
    _check_sizes(root, [(pair.name, image_size(pair.low), image_size(pair.high)) for pair in pairs])
    return pairs


def load_pairs(paths: Sequence[PairPaths], progress: Progress | None = None) -> tuple[Pair, ...]:
    """Decode pairs once, on several threads, and keep them in memory as 8 bits (1.4 MB per pair of 600 x 400).

    Args:
        paths: What `find_pairs` found.
        progress: Called as `progress(images done, images in all)`.

    Returns:
        The pairs, in the same order.

    Raises:
        UserError: A file cannot be read, or a pair's sizes differ.
    """
    images = read_images([path for pair in paths for path in (pair.low, pair.high)], progress)
    sizes = [(pair.name, images[2 * i].shape[:2], images[2 * i + 1].shape[:2]) for i, pair in enumerate(paths)]
    if paths:
        _check_sizes(paths[0].low.parent.parent, sizes)
    return tuple(Pair(pair.name, images[2 * i], images[2 * i + 1]) for i, pair in enumerate(paths))


def _by_stem(folder: Path) -> dict[str, Path]:
    paths = list_images(folder)
    doubled = [name for name, count in Counter(path.stem for path in paths).items() if count > 1]
    if doubled:
        raise UserError(f"{folder}: {len(doubled)} names occur twice, with different suffixes ({_several(doubled)})")
    return {path.stem: path for path in paths}


def _check_sizes(root: Path, sizes: list[tuple[str, tuple[int, int], tuple[int, int]]]) -> None:
    differing = [
        f"{name}: low {low[0]} x {low[1]} and high {high[0]} x {high[1]}" for name, low, high in sizes if low != high
    ]
    if differing:
        raise UserError(f"{root}: {len(differing)} pairs differ in size, height x width ({_several(differing)})")


def _several(names: Sequence[str], most: int = 5) -> str:
    """Name the first few of a list."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
