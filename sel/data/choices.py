"""Where the images of a run come from: what a configuration says about it, and how they are loaded."""

import abc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sel.choices import check, section, setting
from sel.data.loading import cached_pairs
from sel.data.pairs import Pair
from sel.data.samples import sample_pairs
from sel.data.scenes import group_scenes, split_by_scene
from sel.data.sources import DATASETS, find_dataset
from sel.data.synthetic import bright_photographs, find_photographs, synthetic_pairs
from sel.errors import UserError
from sel.images.reading import RGB, Progress
from sel.images.resizing import reduced_size, thumbnail
from sel.images.storage import OnProblem

# Training and validation pairs.
Sides = tuple[tuple[Pair, ...], tuple[Pair, ...]]
# From what is being done to a place that hears how much of it is done.
Bars = Callable[[str], AbstractContextManager[Progress]]

# Of the scenes that are held out, and of the camera that darkens photographs of these: runs with different seeds are
# compared on the same images.
_VALIDATION_SEED = 2404_09735


@dataclass(frozen=True, kw_only=True)
class Data(abc.ABC):
    """What all sources have. To add one, derive from this class and enter it in `KINDS`."""

    crop_size: int = setting(128, at_least=1, doc="side of the squares that training takes from images, in pixels")
    resize_chance: float = setting(
        0.0, at_least=0, at_most=1, doc="chance that a pair is shrunk to 0.8 before it is cut; published: 0.2"
    )
    strict: bool = setting(
        False, doc="whether the first bad image ends the run; otherwise bad ones are left out and listed"
    )

    def __post_init__(self) -> None:
        check(self)

    @abc.abstractmethod
    def load(self, *, seed: int, report: OnProblem | None, bars: Bars) -> Sides:
        """Training and validation pairs.

        Args:
          seed: of the run, for what is drawn.
          report: called with the problem of each image that is left out; without it the first is raised.
          bars: shows the progress of what takes a while.

        Raises:
          UserError: if they are missing, or not as they should be.
        """


@dataclass(frozen=True, kw_only=True)
class Stored(Data):
    """Images from disk, which are decoded once and then mapped from a cache."""

    root: str = setting("", doc="folder or zip archive of the images, or what `experiments.prepare_data` wrote")
    train: str = setting("our485", doc="training images: a folder below the root, or a split of a public set")
    validation: str | float = setting(
        "val", doc="validation images: likewise; or a fraction of the training images, like 0.1, in whole scenes"
    )
    cache_dir: str = setting("", doc='folder of decoded images; "": sel/ in the user\'s cache folder', stored=False)
    cache_gib: float = setting(
        50.0, above=0, doc="most that this folder may hold, in GiB; the least recently used goes first", stored=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            fraction = float(self.validation)
        except ValueError:  # a name
            return
        if not 0 < fraction < 1:
            raise ValueError(f"validation must be a name or a fraction between 0 and 1, found {self.validation!r}")
        object.__setattr__(self, "validation", fraction)  # "0.1" is 0.1, as command lines and older runs wrote it

    @property
    def fraction(self) -> float | None:
        """The part of the training images that is held out for validation, or None for images of their own."""
        return None if isinstance(self.validation, str) else self.validation

    def place(self, holds: str) -> Path:
        """The root.

        Raises:
          UserError: if it is empty; it should be the folder of what it `holds`.
        """
        if not self.root:
            raise UserError(f"config.data.root is empty; it must name the folder that holds {holds}")
        return Path(self.root)

    def cache(self) -> dict[str, Any]:
        """Arguments of `sel.data.cached_images`."""
        return {"folder": self.cache_dir or None, "max_bytes": int(self.cache_gib * 2**30)}


@dataclass(frozen=True, kw_only=True)
class Pairs(Stored):
    """Folders of pairs, `ROOT/TRAIN/{low,high}`, or a public set; see `sel.data.find_dataset`."""

    name: str = setting("pairs", doc="which set it is")

    def load(self, *, seed: int, report: OnProblem | None, bars: Bars) -> Sides:
        """As `Data`. Both sides are looked through before the first image is decoded, which takes a while."""
        if self.name in DATASETS:
            holds = " or ".join(split.layout for split in DATASETS[self.name].splits.values())
        else:
            holds = " and ".join(f"{side}/" for side in (self.train, self.validation) if isinstance(side, str) and side)
        root, fraction = self.place(holds or "low/ and high/"), self.fraction
        splits = [self.train] if fraction else [self.train, str(self.validation)]
        found = [find_dataset(self.name, root, split, report=report) for split in splits]
        pairs = []
        for paths in found:
            with bars("decoding") as progress:
                pairs.append(cached_pairs(paths, progress=progress, report=report, **self.cache()))
        if fraction is None:
            return pairs[0], pairs[1]
        sides = split_by_scene(group_scenes([pair.x0 for pair in pairs[0]]), fraction, seed=_VALIDATION_SEED)
        training, validation = (tuple(pairs[0][i] for i in side) for side in sides)
        return training, validation


@dataclass(frozen=True, kw_only=True)
class Camera:
    """The camera that darkens photographs; see `sel.camera.sample_camera`."""

    exposure: tuple[float, float] = setting(
        (0.01, 0.15), above=0, at_most=1, doc="least and greatest fraction of light, log-uniform"
    )
    shot_noise: tuple[float, float] = setting(
        (1e-4, 4e-3), above=0, doc="least and greatest variance per unit of light, log-uniform; read noise goes with it"
    )
    cast: float = setting(0.1, at_least=0, doc="standard deviation of the logarithm of the error in white balance")
    jpeg_quality: tuple[float, float] | None = setting(
        None, at_least=1, at_most=100, doc="least and greatest quality, for example (75, 100); None: no compression"
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("exposure", "shot_noise", "jpeg_quality"):
            limits = getattr(self, name)
            if limits is not None and limits[0] > limits[1]:
                raise ValueError(f"{name} must be (least, greatest), found {limits!r}")


@dataclass(frozen=True, kw_only=True)
class Photographs(Stored):
    """Good photographs, each darkened by a camera of its own; see `sel.data.synthetic_pairs`."""

    train: str = setting("", doc="training photographs: a folder below the root")
    validation: str | float = setting(
        0.1, doc="a fraction of the photographs, like 0.1, in whole scenes; or a folder below the root"
    )
    longest_side: int = setting(
        1024, at_least=1, doc="larger photographs are reduced to this, in pixels, which also averages out their noise"
    )
    darkenings: int = setting(4, at_least=1, doc="pairs of each photograph, every one with a camera of its own")
    camera: Camera = section(Camera, doc="the camera that darkens them")

    def load(self, *, seed: int, report: OnProblem | None, bars: Bars) -> Sides:
        """As `Data`."""
        root, fraction = self.place("photographs"), self.fraction
        folders = [self.train] if fraction else [self.train, str(self.validation)]
        found = [find_photographs(root / folder, report=report) for folder in folders]
        bright: list[dict[str, RGB]] = []
        for photographs in found:
            with bars("reading") as progress:
                options: dict[str, Any] = {"longest_side": self.longest_side, "progress": progress, "report": report}
                bright.append(bright_photographs(photographs, **options, **self.cache()))
        if fraction is not None:
            names, images = list(bright[0]), list(bright[0].values())
            scenes = split_by_scene(group_scenes(images), fraction, seed=_VALIDATION_SEED)
            bright = [{names[i]: images[i] for i in side} for side in scenes]
        drawn = ((self.darkenings, seed), (1, _VALIDATION_SEED))
        sides: list[tuple[Pair, ...]] = []
        for chosen, (darkenings, its_seed) in zip(bright, drawn, strict=True):
            with bars("darkening") as progress:
                options = {"camera": vars(self.camera), "darkenings": darkenings, "seed": its_seed}
                sides.append(synthetic_pairs(chosen, progress=progress, **options, **self.cache()))
        return sides[0], sides[1]


@dataclass(frozen=True, kw_only=True)
class Samples(Data):
    """Photographs that come with scikit-image, darkened; see `sel.data.sample_pairs`."""

    darkenings: int = setting(8, at_least=1, doc="pairs of each photograph")
    validation_size: int = setting(
        256, at_least=11, doc="validation photographs are reduced to this length of their longer side, in pixels"
    )

    def load(self, *, seed: int, report: OnProblem | None, bars: Bars) -> Sides:
        """As `Data`."""
        training, validation = sample_pairs(darkenings=self.darkenings, seed=seed)
        return training, tuple(_reduced(pair, self.validation_size) for pair in validation)


KINDS: dict[str, type[Data]] = {"pairs": Pairs, "photographs": Photographs, "samples": Samples}


def data_kinds() -> Mapping[str, type[Data]]:
    """Every source by its name: those of `KINDS`, and the public sets of `sel.data.DATASETS`."""
    return {**dict.fromkeys(DATASETS, Pairs), **KINDS}


def _reduced(pair: Pair, longest: int) -> Pair:
    """Both images reduced so that their longer side is `longest`."""
    size = reduced_size(pair.x0.shape[0], pair.x0.shape[1], longest)
    return Pair(pair.name, thumbnail(pair.mu, *size), thumbnail(pair.x0, *size))
