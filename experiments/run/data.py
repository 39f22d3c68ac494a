"""The training and validation pairs that a configuration names."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import Progress

from experiments.run.config import PREFIX
from sel.cli.console import console, print_problems
from sel.data import (
    DATASETS,
    Pair,
    bright_photographs,
    cached_pairs,
    find_dataset,
    find_photographs,
    group_scenes,
    large_enough,
    near_duplicates,
    sample_pairs,
    split_by_scene,
    synthetic_pairs,
)
from sel.errors import UserError
from sel.images.image_io import RGB
from sel.scoring.scores import SMALLEST, scorable
from sel.training import Section

Sides = tuple[tuple[Pair, ...], tuple[Pair, ...]]
Options = dict[str, Any]

# Of the scenes that are held out, and of the camera that darkens photographs of these: runs with different seeds are
# compared on the same images.
_VALIDATION_SEED = 2404_09735


def load_data(config: Section) -> Sides:
    """Training and validation pairs of `config.data`. What is left out, or on both sides, is printed.

    Raises:
      UserError: if they are not there, or not as they should be.
    """
    data = config["data"]
    problems: list[UserError] = []
    report = None if data.get("strict", False) else problems.append
    kinds: dict[str, Callable[[Section, Options], Sides]] = dict.fromkeys(DATASETS, _paired)
    kinds |= {"pairs": _paired, "photographs": _photographs, "samples": _samples}
    if data["name"] not in kinds:
        raise UserError(f"config.data.name must be one of {', '.join(kinds)}, found {data['name']!r}")
    cache = {
        "folder": data.get("cache_dir") or None,
        "max_bytes": int(data.get("cache_gib", 50) * 2**30),
        "report": report,
    }
    sizes = {"crop_size": data["crop_size"], "resize_chance": data["resize_chance"]}
    try:
        training, validation = kinds[data["name"]](config, cache)
        return large_enough(training, **sizes, report=report), scorable(validation, report)
    finally:
        print_problems(problems)


def _samples(config: Section, _: Options) -> Sides:
    data = config["data"]
    if data["darkenings"] < 1 or data["validation_size"] < SMALLEST:
        raise UserError(
            f"config.data.darkenings must be at least 1 and config.data.validation_size at least {SMALLEST}, "
            f"found {data['darkenings']} and {data['validation_size']}"
        )
    training, validation = sample_pairs(darkenings=data["darkenings"], seed=config["seed"])
    return training, tuple(_reduced(pair, data["validation_size"]) for pair in validation)


def _paired(config: Section, cache: Options) -> Sides:
    data = config["data"]
    root, fraction = _root(data), _fraction(data["validation"])
    # Both sides are looked through before the first image is decoded, which takes a while.
    splits = [data["train"]] if fraction else [data["train"], data["validation"]]
    found = [find_dataset(data["name"], root, split, report=cache["report"]) for split in splits]
    pairs = []
    for paths in found:
        with _bar("decoding") as progress:
            pairs.append(cached_pairs(paths, progress=progress, **cache))
    if fraction:
        sides = split_by_scene(group_scenes([pair.x0 for pair in pairs[0]]), fraction, seed=_VALIDATION_SEED)
        training, validation = (tuple(pairs[0][i] for i in side) for side in sides)
        return training, validation
    _warn_of_shared_scenes(*pairs)
    return pairs[0], pairs[1]


def _photographs(config: Section, cache: Options) -> Sides:
    data = config["data"]
    root, fraction = _root(data), _fraction(data["validation"])
    found = [find_photographs(root / data["train"], report=cache["report"])]
    if not fraction:
        found.append(find_photographs(root / data["validation"], report=cache["report"]))
    bright: list[dict[str, RGB]] = []
    for photographs in found:
        with _bar("reading") as progress:
            bright.append(
                bright_photographs(photographs, longest_side=data["longest_side"], progress=progress, **cache)
            )
    if fraction:
        names, images = list(bright[0]), list(bright[0].values())
        scenes = split_by_scene(group_scenes(images), fraction, seed=_VALIDATION_SEED)
        bright = [{names[i]: images[i] for i in side} for side in scenes]
    camera = {name: tuple(x) if isinstance(x, list) else x for name, x in data["camera"].items()}
    make = functools.partial(synthetic_pairs, camera=camera, folder=cache["folder"], max_bytes=cache["max_bytes"])
    drawn = ((data["darkenings"], config["seed"]), (1, _VALIDATION_SEED))
    sides: list[tuple[Pair, ...]] = []
    for chosen, (darkenings, seed) in zip(bright, drawn, strict=True):
        with _bar("darkening") as progress:
            try:
                sides.append(make(chosen, darkenings=darkenings, seed=seed, progress=progress))
            except (TypeError, ValueError) as error:
                raise UserError(f"config.data: {error}") from None
    return sides[0], sides[1]


def _root(data: Section) -> Path:
    if data["root"]:
        return Path(data["root"])
    if data["name"] in DATASETS:
        holds = " or ".join(split.layout for split in DATASETS[data["name"]].splits.values())
    else:
        holds = " and ".join(f"{data[side]}/" for side in ("train", "validation") if data[side]) or "photographs"
    raise UserError(f"config.data.root is empty: {PREFIX}data.root=FOLDER names the folder that holds {holds}")


def _fraction(validation: str) -> float | None:
    """The number that `config.data.validation` is, or None for a name."""
    try:
        fraction = float(validation)
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise UserError(
            f"config.data.validation must be a name or a fraction between 0 and 1 of the pairs, found {validation!r}"
        )
    return fraction


def _warn_of_shared_scenes(training: Sequence[Pair], validation: Sequence[Pair]) -> None:
    alike = near_duplicates([pair.x0 for pair in validation], [pair.x0 for pair in training])
    rows = zip(validation, alike, strict=True)
    shared = {pair.name: training[int(row.argmax())].name for pair, row in rows if row.any()}
    if shared:
        names = ", ".join(f"{name} ({other})" for name, other in list(shared.items())[:20])
        more = f" and {len(shared) - 20} more" if len(shared) > 20 else ""
        console.print(
            f"Warning: {len(shared)} of {len(validation)} validation images show a scene of a training image, which "
            f"flatters their scores: {names}{more}. {PREFIX}data.validation=0.1 holds out whole scenes instead."
        )


@contextlib.contextmanager
def _bar(description: str) -> Iterator[Callable[[int, int], None]]:
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(description)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _reduced(pair: Pair, longest: int) -> Pair:
    """Both images reduced so that their longer side is `longest`."""
    height, width = pair.x0.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = (round(width * scale), round(height * scale))
    mu, x0 = (np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BOX)) for x in (pair.mu, pair.x0))
    return Pair(pair.name, mu, x0)
