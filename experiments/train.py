"""Train a model, validate it on pairs that it has not seen, and show what it does.

    python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart
    python -m experiments.train --config=configs/lol_v1.py:small --config.data.root=LOL --workdir=runs/lol

Any value of the configuration can be changed: --config.loss.divergence=relative --config.batch_size=16, and
--config.init_from=CHECKPOINT begins with the parameters of another run, or of `convert_torch`. The same command goes on
from the last checkpoint of an interrupted run. WORKDIR gets checkpoints/, metrics.jsonl, validation.json,
comparison.png, and in training_images.json which images it was trained on; curves and pictures of the way in
tensorboard/, and with --profile a trace of a few steps in profile/. On several machines, the same command in a process
for each, with --distributed. Every key of the configuration, with its default, its range and its meaning: `python -m
experiments.summary --keys`, or docs/configuration.md.
"""

if __name__ == "__main__":  # first of all: it may start the program again
    from sel.cli.large_pages import use_large_pages

    use_large_pages()

import functools
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from experiments.run import processes
from experiments.run.board import Board
from experiments.run.config import PREFIX, load_config
from experiments.run.data import load_data
from experiments.run.profiling import Profile
from experiments.run.stopping import StopSignals
from experiments.run.summary import print_compiled, print_summary, summarize
from sel.choices import differences, name_of, to_dict
from sel.cli.arguments import define_path
from sel.cli.console import console, fail, require, run
from sel.cli.progress import StepProgress, with_progress
from sel.cli.tables import score_table
from sel.data import Pair
from sel.files import write_json
from sel.objective import LOSSES
from sel.restorer import Restorer
from sel.scoring.pictures import comparison, write_comparison
from sel.scoring.scores import mean_row, score_pairs
from sel.training import (
    Config,
    Hooks,
    Stopped,
    build_parts,
    build_restore,
    find_init,
    latest_step,
    read_config,
    train,
    write_record,
)

_CONFIG = define_path("config", "", "Configuration file, FILE or FILE:VARIANT.")
_WORKDIR = define_path("workdir", "", "Folder of the run.")
flags.adopt_module_key_flags(processes)
_PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of a few steps, from the third on, to WORKDIR/profile.")

# Pictures in comparison.png, and images scored on the way; scores at the end are those of all validation pairs.
_SHOWN = 6
# Of these on the board, which gets them at every validation; small, because PNG files of a long run add up.
_ON_BOARD, _BOARD_WIDTH = 4, 192

Rows = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def main(changes: list[str]) -> None:
    """Train, validate, report; tell where an interrupted run goes on."""
    config, workdir = load_config(_CONFIG.value, changes), Path(_WORKDIR.value)
    spread_over_cores(config)
    speaks = processes.join_processes()
    console.quiet = not speaks
    with processes.watch_processes():
        run_training(config, workdir, speaks)


def run_training(config: Config, workdir: Path, speaks: bool) -> None:
    """What each process of a run does; the one that `speaks` validates and writes."""
    # Before anything is read or written: mistakes in the configuration show at once.
    build_parts(config)
    restore = build_restore(config)
    origin = None if latest_step(workdir) else find_init(config)
    training, validation = load_data(config)
    announce(config, workdir, f"{len(training)} training and {len(validation)} validation pairs", origin)
    print_summary(summarize(config))
    record = functools.cache(functools.partial(write_record, workdir, training, config.init_from))
    board, profile = Board(workdir / "tensorboard"), Profile(workdir / "profile", enabled=_PROFILE.value)

    def report(step: int, metrics: dict[str, float]) -> None:
        record()  # not before the first step: a run that is refused leaves nothing behind
        board.begin(step)
        progress(step, metrics)

    def glance(step: int, average: Any) -> dict[str, float]:
        scored = list(score_pairs(Restorer(restore, jax.device_get(average)), validation[:_SHOWN]))
        show(board, step, rows_of(scored))
        mean = mean_row([row for _, _, row in scored])
        return {"validation_psnr": mean["psnr"], "validation_ssim": mean["ssim"]}

    try:
        with board:
            with StopSignals() as signals, StepProgress(config.num_steps) as progress, profile:
                hooks = Hooks(
                    on_train_begin=print_compiled,
                    on_step_begin=profile,
                    on_step_end=report,
                    on_validation=glance,
                    on_log=board.log,
                    on_message=console.print,
                    should_stop=signals,
                )
                state = train(config, workdir, training, hooks=hooks)
            if speaks:
                shown = validate(Restorer(restore, jax.device_get(state.average)), validation, workdir)
                show(board, config.num_steps, shown)
        multihost_utils.sync_global_devices("validated")
    except Stopped as stopped:
        fail(f"interrupted; the same command goes on from step {stopped.step}", signals.status)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; the same command goes on from step {latest_step(workdir)}") from None
    console.print(f"\nCheckpoint: {workdir}/checkpoints    pictures: {workdir}/comparison.png")
    console.print("Enhance a photograph of your own:")
    checkpoint = shlex.quote(str(workdir))
    console.print(
        f"  python -m experiments.enhance --checkpoint={checkpoint} --input=PHOTO.jpg --output=PHOTO_bright.png"
    )


def spread_over_cores(config: Config) -> None:
    """On a CPU, let the cores share the batch: a fourth more steps than with one device that all cores work for.

    Processes that are joined to one run get one device each, if nothing else is said: they are meant to be many.
    """
    count, share = config.compute.cpu_devices, config.batch_size // config.compute.accumulate
    if "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = 1 if processes.is_distributed() else min(cores, share)
    count = count or max((n for n in range(1, most + 1) if share % n == 0), default=1)
    jax.config.update("jax_num_cpu_devices", count)


def announce(config: Config, workdir: Path, pairs: str, origin: Path | None) -> None:
    """Print what will be done, on what, and from where."""
    devices = f"{jax.device_count()} {jax.default_backend().upper()} device{'s' if jax.device_count() > 1 else ''}"
    console.print(f"{pairs}; {devices}; loss {name_of(LOSSES, config.loss)}")
    if latest_step(workdir):
        step = latest_step(workdir)
        left = "" if step < config.num_steps else ": nothing is left to train, it is validated again"
        console.print(f"{workdir} holds this run up to step {step}{left}")
    if origin:
        console.print(f"parameters begin as those of {origin}")
        stored = to_dict(read_config(origin).diffusion)
        for difference in differences(stored, to_dict(config.diffusion), where="config.diffusion"):
            console.print(f"note: {difference} here, which they have yet to learn")


def validate(restorer: Restorer, pairs: tuple[Pair, ...], workdir: Path) -> Rows:
    """Score all validation pairs; print the table, write validation.json and comparison.png; return its images."""
    start = time.monotonic()
    console.print(f"Validating {len(pairs)} images ...")
    scored = list(score_pairs(restorer, with_progress(pairs, "validating")))
    rows = [row for _, _, row in scored]
    mean = mean_row(rows)
    console.print(score_table([*(rows if len(rows) <= 12 else []), mean], f"Validation, {len(pairs)} images"))
    gain, seconds = mean["psnr"] - mean["psnr_dark"], time.monotonic() - start
    console.print(f"Enhanced images are {gain:+.2f} dB PSNR against dark ones ({seconds:.0f} s).")
    write_json(workdir / "validation.json", [*rows, mean])
    shown = rows_of(scored[:_SHOWN])
    write_comparison(workdir / "comparison.png", shown)
    return shown


def rows_of(scored: Sequence[tuple[Pair, np.ndarray, Any]]) -> Rows:
    """Dark, enhanced and target images of scored pairs."""
    return [(pair.mu, image, pair.x0) for pair, image, _ in scored]


def show(board: Board, step: int, rows: Rows) -> None:
    """Put the first rows on the board."""
    picture = comparison(rows[:_ON_BOARD], headings=("dark", "enhanced", "target"), width=_BOARD_WIDTH)
    board.image(step, "validation/dark_enhanced_target", picture)


if __name__ == "__main__":
    require("config", "workdir")
    run(main, prefix=PREFIX)
