"""Restoring images and scoring them against their targets: what `train`, `evaluate` and `enhance` share."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from experiments.console import console
from sel.data import Pair, write_png
from sel.errors import UserError
from sel.metrics import psnr, ssim
from sel.restoration import Restore
from sel.training import find_checkpoint, read_config, read_params
from sel.training.build import build_restore


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
        config = read_config(checkpoint)
        return cls(build_restore(config), read_params(checkpoint), seed)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Enhance `[h, w, 3]` uint8; the same image and seed give the same result."""
        mu = jax.numpy.asarray(image[None], jax.numpy.float32) / 255
        x0 = self._restore(self._params, self._key, mu)[0]
        return np.asarray(jax.numpy.round(x0 * 255).astype(jax.numpy.uint8))


def score_pairs(restorer: Restorer, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, np.ndarray, dict[str, Any]]]:
    """Each pair with its enhanced image and its row of scores, all of 8-bit images."""
    for pair in pairs:
        enhanced = restorer(pair.mu)
        x0, mu, result = (np.float32(x) / 255 for x in (pair.x0, pair.mu, enhanced))
        row: dict[str, Any] = {"name": pair.name}
        for suffix, image in (("_dark", mu), ("", result)):
            row["psnr" + suffix] = float(psnr(image, x0))
            row["ssim" + suffix] = float(ssim(image, x0))
        yield pair, enhanced, row


def mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each score over the images."""
    names = [name for name in rows[0] if name != "name"]
    return {"name": "mean", **{name: float(np.mean([row[name] for row in rows])) for name in names}}


def with_progress(items: Sequence[Any], description: str) -> Iterator[Any]:
    """Iterate with a bar on a terminal."""
    from rich.progress import track

    yield from track(items, description, console=console, disable=not console.is_terminal)


def write_comparison(path: Path, rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], width: int = 360) -> None:
    """One row for each image: dark | enhanced | target, each reduced to `width` pixels if it is wider."""

    def fit(image: np.ndarray) -> np.ndarray:
        height = max(1, round(image.shape[0] * min(1.0, width / image.shape[1])))
        return np.asarray(Image.fromarray(image).resize((min(width, image.shape[1]), height), Image.Resampling.LANCZOS))

    gap = 6
    lines = [np.concatenate([np.pad(fit(x), [(gap, 0), (gap, 0), (0, 0)], constant_values=255) for x in row], 1) for row in rows]
    widest = max(line.shape[1] for line in lines)
    lines = [np.pad(line, [(0, 0), (0, widest - line.shape[1]), (0, 0)], constant_values=255) for line in lines]
    write_png(path, np.pad(np.concatenate(lines), [(0, gap), (0, gap), (0, 0)], constant_values=255))


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all.

    Raises:
      UserError: if it can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror}") from None
