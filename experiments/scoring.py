"""Restoring images and scoring them against their targets: what `train`, `evaluate` and `enhance` share."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from sel.data import Pair, Report, write_png
from sel.errors import UserError
from sel.metrics import psnr, ssim
from sel.restoration import Restore
from sel.training import build_restore, find_checkpoint, read_config, read_params

# SSIM averages over windows of this side.
SMALLEST = 11


class Restorer:
    """A trained model as a function from one 8-bit image to another."""

    def __init__(self, restore: Restore, params: Any, seed: int = 0):
        self._restore, self._params, self._key = restore, params, jax.random.key(seed)

    @classmethod
    def from_checkpoint(cls, path: str, seed: int = 0) -> "Restorer":
        """Network, diffusion and sampler are those that the checkpoint was trained with.

        Raises:
          UserError: if there is no checkpoint of this project at `path`.
        """
        checkpoint = find_checkpoint(path)
        return cls(build_restore(read_config(checkpoint)), read_params(checkpoint), seed)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Enhance `[h, w, 3]` uint8; the same image and seed give the same result."""
        mu = jnp.asarray(image[None], jnp.float32) / 255
        x0 = self._restore(self._key, self._params, mu)[0]
        return np.asarray(jnp.round(x0 * 255).astype(jnp.uint8))


def scorable(pairs: Sequence[Pair], report: Report | None = None) -> tuple[Pair, ...]:
    """Leave out images that are too small to be scored.

    Raises:
      UserError: none is left; without `report`, one is too small.
    """
    small = [pair for pair in pairs if min(pair.x0.shape[:2]) < SMALLEST]
    for pair in small:
        height, width = pair.x0.shape[:2]
        problem = UserError(
            f"image {pair.name} of {height} x {width} pixels is too small to be scored: SSIM needs at least "
            f"{SMALLEST} x {SMALLEST}"
        )
        if report is None or len(small) == len(pairs):
            raise problem
        report(problem)
    return tuple(pair for pair in pairs if pair not in small)


def score_pairs(restorer: Restorer, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, np.ndarray, dict[str, Any]]]:
    """Each pair with its enhanced image and its row of scores, all of 8-bit images."""
    for pair in pairs:
        enhanced = restorer(pair.mu)
        x0, mu, result = (jnp.asarray(image, jnp.float32) / 255 for image in (pair.x0, pair.mu, enhanced))
        row: dict[str, Any] = {"name": pair.name}
        for suffix, image in (("_dark", mu), ("", result)):
            row["psnr" + suffix] = float(psnr(image, x0))
            row["ssim" + suffix] = float(ssim(image, x0))
        yield pair, enhanced, row


def mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each score over the images."""
    names = [name for name in rows[0] if name != "name"]
    return {"name": "mean", **{name: float(np.mean([row[name] for row in rows])) for name in names}}


def write_comparison(
    path: Path, rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], width: int = 360, gap: int = 6
) -> None:
    """One row for each image: dark | enhanced | target, each reduced to `width` pixels if it is wider."""

    def fit(image: np.ndarray) -> np.ndarray:
        height = max(1, round(image.shape[0] * min(1.0, width / image.shape[1])))
        return np.asarray(Image.fromarray(image).resize((min(width, image.shape[1]), height), Image.Resampling.LANCZOS))

    def framed(image: np.ndarray, *margins: tuple[int, int]) -> np.ndarray:
        return np.pad(image, [*margins, (0, 0)], constant_values=255)

    lines = [np.concatenate([framed(fit(image), (gap, 0), (gap, 0)) for image in row], axis=1) for row in rows]
    widest = max(line.shape[1] for line in lines)
    sheet = np.concatenate([framed(line, (0, 0), (0, widest - line.shape[1])) for line in lines])
    write_png(path, framed(sheet, (0, gap), (0, gap)))


def make_folder(path: Path) -> None:
    """Make a folder that results go to, and those above it.

    Raises:
      UserError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: this folder can't be made: {error.strerror}") from None


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all. The PSNR of identical images is infinite, which JSON does not know: null.

    Raises:
      UserError: if it can't be written.
    """
    value = json.loads(json.dumps(value), parse_constant=lambda _: None)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror}") from None
