"""What the page does for a visitor, without the page: photographs in a folder of the visit, which goes with it."""

import functools
import hashlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sel.choices import name_of
from sel.diffusion import SAMPLERS
from sel.errors import UserError
from sel.images import image_size
from sel.images.decoding import read_photograph
from sel.images.photographs import Photograph
from sel.images.resizing import reduced
from sel.images.writing import write_photograph
from sel.restoration import Report
from sel.restorer import Restorer, with_sampler
from sel.training import build_restore, find_checkpoint, read_config, read_params, sampler_steps

# What a browser is shown is at most so many pixels a side; what is downloaded has all of them.
PREVIEW_SIDE = 1600


class Model:
    """A checkpoint with whatever sampler a visitor chooses; its parameters are read once.

    Attributes:
      method: sampler of the checkpoint.
      most_steps: those of the diffusion that the network was trained with.
    """

    def __init__(self, path: str):
        checkpoint = find_checkpoint(path)
        self._config, self._params = read_config(checkpoint), read_params(checkpoint)
        self.method: str = name_of(SAMPLERS, self._config.sampler.method)
        self.most_steps: int = self._config.diffusion.num_steps
        self._restorer = functools.lru_cache(maxsize=8)(self._build)
        self._restorer(self.method, self.steps(self.method))  # a checkpoint that can't be sampled is noticed at once

    def steps(self, method: str) -> int:
        """How many a sampler takes if nobody says otherwise."""
        return sampler_steps(with_sampler(self._config, method, None))

    def restorer(self, method: str, steps: int, seed: int) -> Restorer:
        """The model with a sampler; what is compiled is kept for the samplers used last."""
        return self._restorer(method, steps).with_seed(seed)

    def _build(self, method: str, steps: int) -> Restorer:
        return Restorer(build_restore(with_sampler(self._config, method, steps)), self._params)


class Visits:
    """A folder for each visit, below one that is nobody else's."""

    def __init__(self, root: Path):
        self._root = root

    def folder(self, visitor: str) -> Path:
        """The folder of a visit; what a visitor calls himself leads nowhere else."""
        folder = self._root / f"visit-{hashlib.sha256(visitor.encode()).hexdigest()[:32]}"
        folder.mkdir(exist_ok=True)
        return folder

    def end(self, visitor: str) -> None:
        """Remove what a visit left."""
        shutil.rmtree(self.folder(visitor), ignore_errors=True)

    def sweep(self, age: float) -> None:
        """Remove files that are older than `age` seconds, and folders that this leaves empty."""
        oldest = time.time() - age
        for path in sorted(self._root.rglob("*"), reverse=True):  # what a folder holds comes before it
            try:
                if path.stat().st_ctime < oldest:
                    path.rmdir() if path.is_dir() else path.unlink()
            except OSError:  # not empty, or gone
                continue


class Shown(NamedTuple):
    """What a visitor sees and takes away.

    Attributes:
      before: the photograph as it came, for browsers.
      after: enhanced, for browsers.
      download: enhanced, with the pixels, depth and metadata of the photograph.
    """

    before: Path
    after: Path
    download: Path


def accept(upload: Path, folder: Path, max_pixels: float) -> tuple[Path, Path]:
    """Take a photograph in, in place of what the visit had.

    Returns:
      The photograph, and a smaller one to look at.

    Raises:
      UserError: it is too large or none at all.
    """
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "photograph" / upload.name
    source.parent.mkdir(parents=True)
    shutil.move(upload, source)
    try:
        height, width = image_size(source)
        if height * width > max_pixels:
            raise UserError(
                f"{source}: {width} x {height} pixels are {height * width / 1e6:.3g} megapixels; "
                f"this page takes up to {max_pixels / 1e6:g}"
            )
        photograph = read_photograph(source, max_megapixels=max_pixels / 1e6)
    except UserError as error:
        source.unlink()
        raise UserError(str(error).replace(str(source), source.name)) from None
    return source, _write_preview(folder / "before.webp", photograph, photograph.intensities())


def enhance(restorer: Restorer, source: Path, report: Report) -> Shown:
    """Enhance the photograph of a visit; the result replaces an earlier one.

    Raises:
      UserError: the photograph is gone, as is one whose visit has ended meanwhile, or there is too little memory.
    """
    gone = UserError("the photograph is no longer here; choose it again")

    def check(done: int, total: int) -> None:
        if not source.exists():
            raise gone
        report(done, total)

    check(0, 1)
    photograph = read_photograph(source)
    enhanced = restorer.enhance(photograph.intensities(), check)
    folder = source.parents[1]
    for earlier in folder.glob("result-*"):
        shutil.rmtree(earlier, ignore_errors=True)
    try:
        # A name that is new: browsers show what they know under a name.
        result = Path(tempfile.mkdtemp(prefix="result-", dir=folder))
        download = result / f"{source.stem[:100]}_bright.png"
        write_photograph(download, photograph.replaced(enhanced))
        return Shown(folder / "before.webp", _write_preview(result / "after.webp", photograph, enhanced), download)
    except FileNotFoundError:
        raise gone from None


def _write_preview(path: Path, photograph: Photograph, intensities: np.ndarray) -> Path:
    image = Image.fromarray(reduced(np.rint(np.clip(intensities, 0, 1) * 255).astype(np.uint8), PREVIEW_SIDE))
    profile = photograph.metadata.icc if photograph.color.shape[-1] == 3 else b""
    image.save(path, "WEBP", quality=90, icc_profile=profile)
    return path
