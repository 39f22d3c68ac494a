"""Paired photographs: `low/NAME.*` (degraded) with `high/NAME.*` (clean), always matched by name.

One rule for bad data: without a `report` the first problem raises `UserError`; with one, it is called with each
problem, the pair is left out and the work goes on.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sel.errors import UserError
from sel.images.decoding import image_size
from sel.images.listing import list_images, natural_order
from sel.images.reading import Progress, read_images
from sel.images.storage import ImageSource, OnProblem, Record, refuse

# What the two folders of a set are called, in lower case; the first is this project's own name.
LOW = ("low", "input", "inp", "lq", "dark", "low-light", "low_light", "lowlight")
HIGH = ("high", "normal", "target", "gt", "hq", "label", "reference", "ref", "normal-light", "normal_light")


@dataclass(frozen=True)
class PairPaths:
    """Two images of one scene: `low` the low-light photograph, `high` the reference."""

    name: str
    low: ImageSource
    high: ImageSource


@dataclass(frozen=True, eq=False)
class Pair:
    """Two decoded images of one scene, equal in shape: `mu` the low-light image, `x0` the clean one; 8-bit sRGB."""

    name: str
    mu: UInt8[np.ndarray, "h w 3"]
    x0: UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Named:
    """An image before it is matched: images of equal `key` belong together."""

    name: str
    key: str
    source: ImageSource


def find_pairs(root: str | Path, *, report: OnProblem | None = None) -> tuple[PairPaths, ...]:
    """Match the images of `root/low` and `root/high` by file name without suffix, never by order.

    The folders may have another of the names in `LOW` and `HIGH`, and the files a side's name before or after their
    own: `low00690.png` belongs to `normal00690.png`. Sizes are compared from the files' headers; nothing is decoded.

    Args:
      root: the folder that holds `low/` and `high/`.
      report: called with each problem; without it the first is raised.

    Returns:
      The pairs, in natural order of their names.

    Raises:
      UserError: if a folder is missing or empty, or no pair is left. Without `report` also: an image has no partner,
        two images of a folder share a name, or the two images of a pair differ in size; the message names them.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    low, high = ([Named(path.stem, scene_key(path.stem), path) for path in list_images(x)] for x in _sides(root))
    return match_pairs(root, *agreed_names(low, high), report=report)


def match_pairs(
    root: Path | str, low: Sequence[Named], high: Sequence[Named], *, report: OnProblem | None = None
) -> tuple[PairPaths, ...]:
    """Match images of equal keys, and compare their sizes.

    Args:
      root: where they were found, for messages.
      low: low-light images, each with a name of its own; it becomes the pair's.
      high: references, each with a key of its own.
      report: told of each problem; without it the first raises.

    Returns:
      The pairs, in natural order of their names.

    Raises:
      UserError: as `find_pairs`.
    """
    problems: list[UserError] = []

    def tell(error: UserError) -> None:
        problems.append(error)
        if report is not None:
            report(error)

    collect = tell if report else None
    doubled_low, doubled_high = _doubled(root, low, "name", collect), _doubled(root, high, "key", collect)
    low_keys, high_keys = {image.key for image in low}, {image.key for image in high}
    _refuse_alone(
        root,
        [image for image in low if image.key not in high_keys],
        [image for image in high if image.key not in low_keys],
        collect,
    )
    references = {image.key: image.source for image in high if image.key not in doubled_high}
    pairs = [
        PairPaths(image.name, image.source, references[image.key])
        for image in sorted(low, key=lambda image: natural_order(image.name))
        if image.key in references and image.name not in doubled_low
    ]
    # Prepared sets were compared when they were written.
    unequal = _unequal(root, [pair for pair in pairs if not isinstance(pair.low, Record)], collect)
    found = tuple(pair for pair in pairs if pair.name not in unequal)
    if not found:
        raise UserError(f"{root}: no pair is left" + (f"; {problems[0]}" if problems else ""))
    return found


def load_pairs(
    paths: Sequence[PairPaths], progress: Progress | None = None, *, report: OnProblem | None = None
) -> tuple[Pair, ...]:
    """Decode pairs once, on several threads, and keep them in memory as 8 bits (1.4 MB per pair of 600 x 400).

    Args:
      paths: what `find_pairs` or `find_dataset` found.
      progress: called as `progress(images done, images in all)`.
      report: told of each image that cannot be used, and of pairs that differ in size; without it the first raises.

    Returns:
      The pairs, in the same order.

    Raises:
      UserError: if without `report`: an image cannot be read, or a pair's sizes differ. With it: no pair is left.
    """
    images = read_images([source for pair in paths for source in (pair.low, pair.high)], progress, report=report)
    return join_images(paths, images, report=report)


def join_images(
    paths: Sequence[PairPaths], images: Sequence[UInt8[np.ndarray, "_ _ 3"] | None], *, report: OnProblem | None = None
) -> tuple[Pair, ...]:
    """Join decoded images, low and high in turn, to pairs; one that is None leaves its pair out.

    Raises:
      UserError: if no pair is left; without `report` also: the images of a pair differ in size.
    """
    pairs = []
    for pair, mu, x0 in zip(paths, images[::2], images[1::2], strict=True):
        if mu is None or x0 is None:
            continue
        if mu.shape != x0.shape:
            low, high = (f"{image.shape[0]} x {image.shape[1]}" for image in (mu, x0))
            sizes = f"1 pairs differ in size, height x width ({pair.name}: low {low} and high {high})"
            refuse(report, f"{pair.low}: {sizes}")
            continue
        pairs.append(Pair(pair.name, mu, x0))
    if paths and not pairs:
        raise UserError(f"{paths[0].low}: neither this pair nor any of the other {len(paths) - 1} can be used")
    return tuple(pairs)


def scene_key(stem: str) -> str:
    """The part of a file's name that both images of a scene share: without a side's name before or after it."""
    sides = "|".join((*LOW, *HIGH))
    return re.sub(rf"^(?:{sides})(?:[-_]|(?=\d))|[-_](?:{sides})$", "", stem, flags=re.IGNORECASE) or stem


def _sides(root: Path) -> tuple[Path, Path]:
    if all((root / side).is_dir() for side in ("low", "high")):
        return root / "low", root / "high"
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    low, high = ([folder for folder in folders if folder.name.lower() in names] for names in (LOW, HIGH))
    if len(low) == len(high) == 1:
        return low[0], high[0]
    missing = [side for side, found in (("low", low), ("high", high)) if not found]
    found = several(sorted(entry.name for entry in root.iterdir())) or "nothing"
    raise UserError(
        f"{root}: must hold the folders low/ and high/, "
        + (f"missing {' and '.join(missing)}, found {found}" if missing else f"found several of each kind: {found}")
    )


def _doubled(root: Path | str, images: Sequence[Named], field: str, report: OnProblem | None) -> set[str]:
    count = Counter(getattr(image, field) for image in images)
    doubled = [image for image in images if count[getattr(image, field)] > 1]
    if doubled and report is None:
        names = list(dict.fromkeys(getattr(image, field) for image in doubled))
        folder = doubled[0].source.parent if isinstance(doubled[0].source, Path) else root
        raise UserError(f"{folder}: {len(names)} names occur twice, with different suffixes ({several(names)})")
    for image in doubled:
        refuse(report, f"{image.source}: another image has the same name, {getattr(image, field)}")
    return {getattr(image, field) for image in doubled}


def _refuse_alone(root: Path | str, low: Sequence[Named], high: Sequence[Named], report: OnProblem | None) -> None:
    sides = [(here, there, images) for here, there, images in (("low", "high", low), ("high", "low", high)) if images]
    if sides and report is None:
        problems = [
            f"{len(images)} in {here}/ without a partner in {there}/ ({several([image.name for image in images])})"
            for here, there, images in sides
        ]
        raise UserError(f"{root}: images are paired by name: {'; '.join(problems)}")
    for here, there, images in sides:
        for image in images:
            refuse(report, f"{image.source}: no partner of the name {image.name} ({here} without {there})")


def _unequal(root: Path | str, pairs: Sequence[PairPaths], report: OnProblem | None) -> set[str]:
    """Names of pairs whose sizes differ or whose headers can't be read."""
    unequal, lines = set(), []
    for pair in pairs:
        try:
            low, high = image_size(pair.low), image_size(pair.high)
        except UserError as error:
            refuse(report, str(error))
            unequal.add(pair.name)
            continue
        if low != high:
            unequal.add(pair.name)
            lines.append((pair, f"{pair.name}: low {low[0]} x {low[1]} and high {high[0]} x {high[1]}"))
    if lines and report is None:
        differing = several([line for _, line in lines])
        raise UserError(f"{root}: {len(lines)} pairs differ in size, height x width ({differing})")
    for pair, line in lines:
        refuse(report, f"{pair.low}: its pair differs in size, height x width ({line})")
    return unequal


def agreed_names(low: Sequence[Named], high: Sequence[Named]) -> tuple[list[Named], list[Named]]:
    """Both sides with equal names as keys; the other low-light images are called by the key that they share."""
    both = {image.name for image in low} & {image.name for image in high}

    def agreed(image: Named) -> Named:
        # What has a partner of its own name is nobody else's partner.
        return replace(image, key=image.name) if image.name in both or image.key in both else image

    renamed = [image if image.name in both else replace(image, name=image.key) for image in map(agreed, low)]
    return renamed, [agreed(image) for image in high]


def several(names: Sequence[str], most: int = 5) -> str:
    """Name the first few of a list."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
