"""Train a model, validate it on pairs that it has not seen, and show what it does.

    python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart
    python -m experiments.train --config=configs/lol_v1.py:small --config.data.root=LOL --workdir=runs/lol

Any value of the configuration can be changed: --config.loss.divergence=relative --config.batch_size=16. The same command goes on from the last
checkpoint of an interrupted run. WORKDIR gets checkpoints/, metrics.jsonl, validation.json and comparison.png.
"""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags
from PIL import Image

from experiments.console import StepProgress, console, plain, run, score_table
from experiments.scoring import Restorer, mean_row, score_pairs, with_progress, write_comparison, write_json
from sel.data import Pair, find_pairs, load_pairs, sample_pairs
from sel.errors import UserError
from sel.training import train
from sel.training.build import build_restore

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, FILE or FILE:VARIANT.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
flags.mark_flags_as_required(["config", "workdir"])

# Pictures in comparison.png; scores are those of all validation pairs.
_SHOWN = 6


def main() -> None:
    """Train, validate, report."""
    config, workdir = plain(_CONFIG.value), Path(_WORKDIR.value)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: this is a file, not a folder")
    training, validation = load_data(config["data"], config["seed"])
    devices = f"{jax.device_count()} {jax.devices()[0].platform.upper()} device{'s' if jax.device_count() > 1 else ''}"
    console.print(f"{len(training)} training and {len(validation)} validation pairs; {devices}; loss {config['loss']['name']}")
    with StepProgress(config["num_steps"]) as progress:
        state = train(config, workdir, training, progress)
    restorer = Restorer(build_restore(config), jax.device_get(state.average))
    validate(restorer, validation, workdir)
    console.print(f"\nCheckpoint: {workdir}/checkpoints    pictures: {workdir}/comparison.png")
    console.print("Enhance a photograph of your own:")
    console.print(f"  python -m experiments.enhance --checkpoint={workdir} --input=PHOTO.jpg --output=PHOTO_bright.png")


def load_data(data: dict[str, Any], seed: int) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Training and validation pairs of `config.data`.

    Raises:
      UserError: if they are not there, or not as they should be.
    """
    if data["name"] == "samples":
        training, validation = sample_pairs(darkenings=data["darkenings"], seed=seed)
        return training, tuple(_reduced(pair, data["validation_size"]) for pair in validation)
    if data["name"] != "pairs":
        raise UserError(f"config.data.name must be pairs or samples, found {data['name']!r}")
    if not data["root"]:
        raise UserError(
            f"config.data.root is empty: give the folder that holds {data['train']}/{{low,high}}, --config.data.root=FOLDER"
        )
    root = Path(data["root"])
    # Both are looked through before the first is decoded, which takes a while.
    found = [find_pairs(root / data[side]) for side in ("train", "validation")]
    return load_pairs(found[0]), load_pairs(found[1])


def validate(restorer: Restorer, pairs: tuple[Pair, ...], workdir: Path) -> None:
    """Score all validation pairs; print the table, write validation.json and comparison.png."""
    start = time.monotonic()
    scored = list(score_pairs(restorer, with_progress(pairs, "validating")))
    rows = [row for _, _, row in scored]
    rows.append(mean_row(rows))
    table = score_table(rows if len(rows) <= 12 else rows[-1:], f"Validation, {len(pairs)} images")
    console.print(table)
    gain = rows[-1]["psnr"] - rows[-1]["psnr_dark"]
    console.print(f"Enhanced images are {gain:+.2f} dB PSNR against dark ones ({time.monotonic() - start:.0f} s).")
    write_json(workdir / "validation.json", rows)
    write_comparison(workdir / "comparison.png", [(pair.mu, image, pair.x0) for pair, image, _ in scored[:_SHOWN]])


def _reduced(pair: Pair, longest: int) -> Pair:
    """Both images reduced so that their longer side is `longest`."""
    height, width = pair.x0.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = (round(width * scale), round(height * scale))
    mu, x0 = (np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BOX)) for x in (pair.mu, pair.x0))
    return Pair(pair.name, mu, x0)


if __name__ == "__main__":
    run(main)
