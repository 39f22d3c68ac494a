"""The public low-light sets as their downloads unpack: which folders make a split, and which names belong together.

Each is read from its folder, from the zip archive as it was downloaded, or from what `experiments.prepare_data` wrote.
The layouts are those of the sets' own pages and of public code that reads them; the table in README.md says which.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sel.data.pairs import HIGH, LOW, Named, PairPaths, agreed_names, find_pairs, match_pairs, scene_key, several
from sel.data.prepared import find_prepared, prepared_pairs
from sel.errors import UserError
from sel.images.storage import ImageSource, OnProblem, image_tree

_LOW, _HIGH = "|".join(map(re.escape, LOW)), "|".join(map(re.escape, HIGH))

Images = Mapping[PurePosixPath, ImageSource]


@dataclass(frozen=True)
class Split:
    """Patterns for the paths, without suffix, of the low-light images and of the references of a split.

    Their groups tell a pair: `stem`, and `part` where a set has several (cameras, volumes). Where a scene has many
    exposures, `frame` numbers them from dark to bright, and `stops` are those taken: 1 is the next below the middle.
    """

    low: str
    high: str
    layout: str
    stops: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A public set: its splits, and the part of a file's name that both images of a scene share."""

    title: str
    splits: Mapping[str, Split]
    key: Callable[[str], str] = scene_key


def _folders(above: str, layout: str) -> Split:
    """A split of the form `ABOVE/low/NAME` and `ABOVE/high/NAME`."""
    low, high = (rf"(?:.*/)?(?:{above})/(?:{sides})/(?P<stem>[^/]+)" for sides in (_LOW, _HIGH))
    return Split(low, high, layout)


def _words(word: str, layout: str) -> Split:
    """A split whose folders have a word and a side in their names: `train/input`, `Train_Input`, `train/train_inp`."""
    above = rf"(?:.*/)?[^/]*(?:{word})(?:[^/]*/(?!mini|val|test))?[^/]*"
    return Split(rf"{above}(?:{_LOW})/(?P<stem>[^/]+)", rf"{above}(?:{_HIGH})/(?P<stem>[^/]+)", layout)


def _sice(part: str, stops: tuple[int, ...]) -> Split:
    """Exposures in folders with the number of their scene, references in `Label`: a scene has 7 or 9 exposures."""
    above = rf"(?:.*/)?dataset_part(?P<part>{part})/(?:.*/)?"
    layout = "Dataset_Part1/SCENE/1.JPG ... 7.JPG and Dataset_Part1/Label/SCENE.JPG"
    return Split(rf"{above}(?P<stem>\d+)/(?P<frame>\d+)", rf"{above}label/(?P<stem>\d+)", layout, stops)


def _v2(name: str, above: str) -> dict[str, Split]:
    return {
        split: _folders(f"(?:{above})/{split}", f"{name}/{split.title()}/Low and {name}/{split.title()}/Normal")
        for split in ("train", "test")
    }


# The 58 scenes of part 1 that the authors of SICE test on, as a pattern for what follows `Dataset_Part1`.
_RANGES = ((4, 23), (28, 28), (31, 31), (33, 34), (37, 39), (46, 52), (55, 69), (75, 79), (100, 103))
_TEST = "|".join(str(scene) for first, last in _RANGES for scene in range(first, last + 1))
_SICE_TEST = rf"/(?:.*/)?(?:(?:{_TEST})/\d+|label/(?:{_TEST}))$"
_CAMERA = "(?P<part>huawei|nikon)"

DATASETS: Mapping[str, Dataset] = {
    "lol_v1": Dataset(
        "LOL v1",
        {
            "train": _folders("our485|lol[-_]?v1/train", "our485/low and our485/high"),
            "validation": _folders("val|validation", "val/low and val/high"),
            "test": _folders("eval15|lol[-_]?v1/test", "eval15/low and eval15/high"),
        },
    ),
    "lol_v2_real": Dataset("LOL v2, captured", _v2("Real_captured", "real_captured|lol[-_]?v2[-_]real")),
    "lol_v2_synthetic": Dataset(
        "LOL v2, synthetic",
        _v2("Synthetic", "synthetic|lol[-_]?v2[-_]syn(?:thetic)?"),
        # Copies are about whose references lack the r that both names begin with in the original.
        lambda stem: re.sub(r"^r(?=[0-9a-f]{8}t$)", "", scene_key(stem)),
    ),
    "sice": Dataset(
        "SICE",
        {
            # The authors train on the exposures one and two stops below the middle (github.com/csjcai/SICE/issues/8).
            "train": _sice(f"2|1(?!{_SICE_TEST})", stops=(1, 2)),
            "test": _sice(f"1(?={_SICE_TEST})", stops=(1,)),
        },
    ),
    "lsrw": Dataset(
        "LSRW",
        {
            "train": _folders(f"(?:training data|train)/{_CAMERA}", "Training data/CAMERA/low and .../high"),
            "test": _folders(f"(?:eval|test)/{_CAMERA}", "Eval/CAMERA/low and Eval/CAMERA/high"),
        },
    ),
    "ntire2024_low_light": Dataset(
        "NTIRE 2024 low light",
        {
            "train": _words("train", "train/input and train/target (or GT)"),
            "validation": _words("val", "val/input and val/target (or GT)"),
            "test": _words("test", "test/input and test/target (or GT)"),
        },
    ),
}


def find_dataset(name: str, root: str | Path, split: str, *, report: OnProblem | None = None) -> tuple[PairPaths, ...]:
    """Find the pairs of one split of a set.

    Args:
      name: a name in `DATASETS`, or `pairs` for folders of the reader's own.
      root: the folder that the download was unpacked to, or any above it; the zip archive itself; or a prepared set.
      split: `train`, `validation` or `test`; with `pairs` the folder below the root that holds `low/` and `high/`,
        which may be empty.
      report: told of each problem with images; without it the first raises.

    Returns:
      The pairs, in natural order of their names.

    Raises:
      UserError: if there is no such set, root or split, or no pair is left; without `report` as `find_pairs`.
    """
    if name != "pairs" and name not in DATASETS:
        raise UserError(f"there is no data set {name!r}; known are pairs, {', '.join(DATASETS)}")
    root = Path(root)
    prepared = find_prepared(root, None if name == "pairs" else name)
    if prepared:
        return prepared_pairs(prepared, split)
    if name == "pairs":
        return _find_own(root, split, report)
    return split_pairs(name, image_tree(root, report=report), split, root, report=report)


def split_pairs(
    name: str, images: Images, split: str, root: Path, *, report: OnProblem | None = None
) -> tuple[PairPaths, ...]:
    """Match the images of one split among all that were found below `root`; as `find_dataset`."""
    dataset = DATASETS[name]
    if split not in dataset.splits:
        raise UserError(f"{dataset.title} has no split {split!r}; it has {', '.join(dataset.splits)}")
    low, high = split_images(name, images, split)
    if not low or not high:
        raise missing_split(name, images, split, root)
    return match_pairs(f"{root}, {split} split", low, high, report=report)


def missing_split(name: str, images: Images, split: str, root: Path) -> UserError:
    """What to raise for a split that isn't there, or of which one side isn't: the layout sought, the folders found."""
    title, layout = DATASETS[name].title, DATASETS[name].splits[split].layout
    sides = dict(zip(("low-light images", "references"), split_images(name, images, split), strict=True))
    if any(sides.values()):
        (there, _), (lacking, _) = sorted(sides.items(), key=lambda side: not side[1])
        return UserError(f"{root}: the {split} split of {title} has {there} but no {lacking} ({layout})")
    folders = sorted({str(path.parent) for path in images})
    found = f"found images in {several(folders)}" if folders else "found no image"
    return UserError(f"{root}: no {split} split of {title}, which is {layout}; {found}")


def split_images(name: str, images: Images, split: str) -> tuple[list[Named], list[Named]]:
    """Low-light images and references of one split, by the rules of the set; empty where it isn't there."""
    dataset = DATASETS[name]
    rule = dataset.splits[split]
    low, high = _select(rule.low, images, dataset.key), _select(rule.high, images, dataset.key)
    return (_exposures(low, rule.stops), high) if rule.stops else agreed_names(low, high)


def _find_own(root: Path, split: str, report: OnProblem | None) -> tuple[PairPaths, ...]:
    if not root.is_file():
        return find_pairs(root / split, report=report)
    images = image_tree(root, report=report)
    rule = _folders(re.escape(split) or "[^/]*", "low and high")
    low, high = (_select(pattern, images, scene_key) for pattern in (rule.low, rule.high))
    if not low or not high:
        raise UserError(f"{root}: {split or 'the archive'} must hold the folders low/ and high/ with images")
    return match_pairs(root, *agreed_names(low, high), report=report)


def _select(pattern: str, images: Images, key: Callable[[str], str]) -> list[Named]:
    match = functools.partial(re.compile(pattern, re.IGNORECASE).fullmatch)
    selected = []
    for path, source in images.items():
        if found := match(str(path.with_suffix(""))):
            groups = found.groupdict()
            part = f"{groups['part'].lower()}-" if "part" in groups else ""
            frame = f"-{groups['frame']}" if "frame" in groups else ""
            selected.append(Named(f"{part}{groups['stem']}{frame}", part + key(groups["stem"]), source))
    return selected


def _exposures(images: Iterable[Named], stops: tuple[int, ...]) -> list[Named]:
    scenes = defaultdict(list)
    for image in images:
        scenes[image.key].append(image)
    taken = []
    for frames in scenes.values():
        frames.sort(key=lambda image: int(image.name.rpartition("-")[2]))
        taken += [frames[len(frames) // 2 - stop] for stop in stops if len(frames) // 2 >= stop]
    return taken
