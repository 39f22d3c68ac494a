"""Train a model, validate it on pairs that it has not seen, and show what it does.

    python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart
    python -m experiments.train --config=configs/lol_v1.py:small --config.data.root=LOL --workdir=runs/lol

Any value of the configuration can be changed: --config.loss.divergence=relative --config.batch_size=16. The same
command goes on from the last checkpoint of an interrupted run. WORKDIR gets checkpoints/, metrics.jsonl,
validation.json and comparison.png.
"""

import shlex
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags
from PIL import Image

from experiments.config import PREFIX, load_config
from experiments.console import StepProgress, console, require, run, score_table, with_progress
from experiments.scoring import (
    SMALLEST,
    Restorer,
    check_sizes,
    mean_row,
    score_pairs,
    write_comparison,
    write_json,
)
from sel.data import Pair, find_pairs, load_pairs, sample_pairs
from sel.errors import UserError
from sel.training import Section, build_parts, build_restore, latest_step, train

_CONFIG = flags.DEFINE_string("config", "", "Configuration file, FILE or FILE:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run.")

# Pictures in comparison.png; scores are those of all validation pairs.
_SHOWN = 6


def main(changes: list[str]) -> None:
    """Train, validate, report; tell where an interrupted run goes on."""
    config, workdir = load_config(_CONFIG.value, changes), Path(_WORKDIR.value)
    # Before anything is read or written: mistakes in the configuration show at once.
    build_parts(config)
    restore = build_restore(config)
    training, validation = load_data(config)
    devices = f"{jax.device_count()} {jax.default_backend().upper()} device{'s' if jax.device_count() > 1 else ''}"
    pairs = f"{len(training)} training and {len(validation)} validation pairs"
    console.print(f"{pairs}; {devices}; loss {config['loss']['name']}")
    if latest_step(workdir):
        console.print(f"{workdir} holds this run up to step {latest_step(workdir)}")
    try:
        with StepProgress(config["num_steps"]) as progress:
            state = train(config, workdir, training, progress)
        validate(Restorer(restore, jax.device_get(state.average)), validation, workdir)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; the same command goes on from step {latest_step(workdir)}") from None
    console.print(f"\nCheckpoint: {workdir}/checkpoints    pictures: {workdir}/comparison.png")
    console.print("Enhance a photograph of your own:")
    checkpoint = shlex.quote(str(workdir))
    console.print(
        f"  python -m experiments.enhance --checkpoint={checkpoint} --input=PHOTO.jpg --output=PHOTO_bright.png"
    )


def load_data(config: Section) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Training and validation pairs of `config.data`.

    Raises:
      UserError: if they are not there, or not as they should be.
    """
    data = config["data"]
    if data["name"] == "samples":
        if data["darkenings"] < 1 or data["validation_size"] < SMALLEST:
            raise UserError(
                f"config.data.darkenings must be at least 1 and config.data.validation_size at least {SMALLEST}, "
                f"found {data['darkenings']} and {data['validation_size']}"
            )
        training, validation = sample_pairs(darkenings=data["darkenings"], seed=config["seed"])
        validation = tuple(_reduced(pair, data["validation_size"]) for pair in validation)
    elif data["name"] == "pairs":
        if not data["root"]:
            folders = f"{data['train']}/ and {data['validation']}/"
            raise UserError(
                f"config.data.root is empty: {PREFIX}data.root=FOLDER names the folder that holds {folders}"
            )
        # Both are looked through before the first is decoded, which takes a while.
        found = [find_pairs(Path(data["root"]) / data[side]) for side in ("train", "validation")]
        training, validation = (load_pairs(paths) for paths in found)
    else:
        raise UserError(f"config.data.name must be pairs or samples, found {data['name']!r}")
    check_sizes(validation)
    return training, validation


def validate(restorer: Restorer, pairs: tuple[Pair, ...], workdir: Path) -> None:
    """Score all validation pairs; print the table, write validation.json and comparison.png."""
    start = time.monotonic()
    scored = list(score_pairs(restorer, with_progress(pairs, "validating")))
    rows = [row for _, _, row in scored]
    mean = mean_row(rows)
    console.print(score_table([*(rows if len(rows) <= 12 else []), mean], f"Validation, {len(pairs)} images"))
    gain, seconds = mean["psnr"] - mean["psnr_dark"], time.monotonic() - start
    console.print(f"Enhanced images are {gain:+.2f} dB PSNR against dark ones ({seconds:.0f} s).")
    write_json(workdir / "validation.json", [*rows, mean])
    write_comparison(workdir / "comparison.png", [(pair.mu, image, pair.x0) for pair, image, _ in scored[:_SHOWN]])


def _reduced(pair: Pair, longest: int) -> Pair:
    """Both images reduced so that their longer side is `longest`."""
    height, width = pair.x0.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = (round(width * scale), round(height * scale))
    mu, x0 = (np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BOX)) for x in (pair.mu, pair.x0))
    return Pair(pair.name, mu, x0)


if __name__ == "__main__":
    require("config", "workdir")
    run(main, prefix=PREFIX)
