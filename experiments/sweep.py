"""Train many configurations, and compare them.

    python -m experiments.sweep --sweep=configs/sweeps/divergence.py --parallel=2

    python -m experiments.sweep --sweep=configs/sweeps/loss.py --config=configs/lol_v1.py:small --config.data.root=LOL

    python -m experiments.sweep --sweep=configs/sweeps/learning_rate.py --launcher=ray --config.validate_every=50

A sweep file has `get_sweep()`, which returns the changes of each trial; configs/sweeps/space.py has what these are made
of. --config.KEY=VALUE changes a value in all trials. The same command goes on with an interrupted sweep: trials that
are done are not run again, others continue from their last checkpoint. A trial that crashes is tried again --retries
times, then recorded, and the others go on; with more --retries the same command tries it again.

WORKDIR gets results.csv, results.png, best.json and trials/, with a folder like that of `experiments.train` for each.
"""

import contextlib
import json
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.run.config import PREFIX, load_config
from experiments.sweeps.launchers import Report, launch_local, launch_slurm
from experiments.sweeps.report import result_table, results, write_csv, write_plot
from experiments.sweeps.trials import (
    FINAL,
    Outcome,
    Trial,
    flag,
    is_done,
    read_outcome,
    read_scores,
    swept_keys,
    trial_name,
)
from sel.cli.arguments import define_path, refuse_unused
from sel.cli.console import console, require, run
from sel.errors import UserError
from sel.extras import MissingExtraError, needs
from sel.files import make_folder, write_json

_SWEEP = define_path("sweep", "", "Sweep file, FILE or FILE:VARIANT.")
_CONFIG = define_path("config", "configs/quickstart.py", "Configuration that the trials change.")
_WORKDIR = define_path("workdir", "", "Folder of the sweep; by default runs/sweeps/NAME of the sweep file.")
_LAUNCHER = flags.DEFINE_enum("launcher", "local", ["local", "ray", "slurm"], "Where trials run.")
_PARALLEL = flags.DEFINE_integer(
    "parallel", 0, "Most trials at once; 0: one with local, what the resources allow with ray and slurm.", lower_bound=0
)
_RETRIES = flags.DEFINE_integer("retries", 1, "How often a trial that crashed is tried again.", lower_bound=0)
_CPUS = flags.DEFINE_integer("cpus_per_trial", 1, "With ray and slurm: CPU cores of each trial.", lower_bound=1)
_ACCELERATORS = flags.DEFINE_integer(
    "accelerators_per_trial", 0, "With ray and slurm: accelerators of each trial.", lower_bound=0
)
_KIND = flags.DEFINE_enum("accelerator", "GPU", ["GPU", "TPU"], "With ray: what an accelerator is.")
_ADDRESS = flags.DEFINE_string(
    "address", "", "With ray: address of a cluster, or `auto` on one of its machines; by default this machine alone."
)
_EARLY = flags.DEFINE_bool("early_stopping", True, "With ray: stop weak trials (ASHA) if config.validate_every is set.")
_GRACE = flags.DEFINE_integer("grace_steps", 0, "With ray: steps that each trial gets; 0: a ninth of the longest.")
_HOURS = flags.DEFINE_float(
    "hours", 24.0, "With slurm: time limit of a job; one that reaches it continues as a new job."
)
_PARTITION = flags.DEFINE_string("partition", "", "With slurm: partition; by default the cluster's.")
_CLUSTER = flags.DEFINE_enum(
    "cluster", "slurm", ["slurm", "local"], "With slurm: local tries the jobs out on this machine."
)


# Flags that only some launchers read.
_OF_LAUNCHERS = {
    "cpus_per_trial": ("ray", "slurm"),
    "accelerators_per_trial": ("ray", "slurm"),
    **dict.fromkeys(("accelerator", "address", "early_stopping", "grace_steps"), ("ray",)),
    **dict.fromkeys(("hours", "partition", "cluster"), ("slurm",)),
}


def main(changes: list[str]) -> None:
    """Run what is left of the sweep; report."""
    check_flags()
    spaces = load_sweep(_SWEEP.value)
    stem = Path(_SWEEP.value.partition(":")[0]).stem
    workdir = Path(_WORKDIR.value or f"runs/sweeps/{stem}").absolute()
    trials = make_trials(spaces, _CONFIG.value, changes, workdir)
    validates = any(trial.validates for trial in trials) or not _EARLY.value
    early = ["early_stopping", "grace_steps"]
    refuse_unused(early, unless=validates, reason="without --config.validate_every=STEPS")
    claim(workdir, _CONFIG.value, changes, spaces)
    todo = [trial for trial in trials if not is_done(trial, _RETRIES.value)]
    console.print(f"{len(trials)} trials of {_SWEEP.value}, {len(trials) - len(todo)} of them done; in {workdir}")
    done = len(trials) - len(todo)

    def report(trial: Trial, outcome: Outcome) -> None:
        nonlocal done
        done += 1
        score = read_scores(trial).get(FINAL)
        result = outcome.error if outcome.state == "failed" else f"{score:.2f} dB" if score is not None else ""
        console.print(f"[{done}/{len(trials)}] {trial.name}: {outcome.state} {result} ({outcome.seconds:.0f} s)")

    with contextlib.suppress(KeyboardInterrupt):  # after which Ray ends in order, and raises nothing
        if todo:
            launch(trials, todo, report, workdir)
    left = sum(not is_done(trial, _RETRIES.value) for trial in trials)
    if left:
        raise KeyboardInterrupt(f"interrupted with {left} open trials; the same command goes on")
    conclude(trials, workdir)


def check_flags() -> None:
    """Refuse flags that nothing reads.

    Raises:
      UserError: names them.
    """
    for name, launchers in _OF_LAUNCHERS.items():
        readers = " or ".join(f"--launcher={launcher}" for launcher in launchers)
        refuse_unused([name], unless=_LAUNCHER.value in launchers, reason=f"without {readers}")
    refuse_unused(["accelerator"], unless=_ACCELERATORS.value > 0, reason="without --accelerators_per_trial=NUMBER")
    refuse_unused(["grace_steps"], unless=_EARLY.value, reason="with --noearly_stopping")


def load_sweep(file: str) -> list[dict[str, Any]]:
    """The changes of each trial, of `get_sweep()` of a file or `get_sweep(VARIANT)`.

    Raises:
      UserError: if the file is missing or fails, or gives something else.
    """
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--sweep={file}: there is no file {path}")
    try:
        get_sweep = runpy.run_path(path).get("get_sweep")
        sweep = list(get_sweep(*[variant] if variant else [])) if get_sweep else []
    except ValueError as error:  # a variant that there is not, in the words of the file
        raise UserError(f"--sweep={file}: {error}") from error
    except Exception as error:  # a sweep is a program, and raises what it likes
        raise UserError(f"--sweep={file}: {traceback.format_exception_only(error)[-1].strip()}") from error
    if not sweep or not all(isinstance(changes, dict) for changes in sweep):
        raise UserError(f"--sweep={file}: it must define get_sweep(), which returns a list of dictionaries")
    return sweep


def make_trials(spaces: Sequence[dict[str, Any]], config: str, changes: Sequence[str], workdir: Path) -> list[Trial]:
    """A trial for each set of changes.

    Raises:
      UserError: if a key or a value of one is refused.
    """
    trials = []
    for index, space in enumerate(spaces):
        arguments = [*changes, *(flag(key, value) for key, value in space.items())]
        name = trial_name(index, space)
        try:
            loaded = load_config(config, arguments)
        except UserError as error:
            raise UserError(f"trial {name}: {error}") from error
        folder = str(workdir / "trials" / name)
        command = (sys.executable, "-m", "experiments.train", f"--config={config}", f"--workdir={folder}", *arguments)
        trials.append(Trial(name, space, folder, command, loaded.num_steps, bool(loaded.validate_every)))
    return trials


def claim(workdir: Path, config: str, changes: Sequence[str], spaces: Sequence[dict[str, Any]]) -> None:
    """Note in the folder what sweep it holds. A sweep may grow, not change.

    Raises:
      UserError: if it holds another one.
    """
    path = workdir / "sweep.json"
    # As JSON gives it back: with lists for tuples.
    sweep = json.loads(json.dumps({"config": config, "changes": list(changes), "trials": list(spaces)}))
    if path.exists():
        before = json.loads(path.read_text())
        same = {**before, "trials": 0} == {**sweep, "trials": 0}
        if not same or any(a != b for a, b in zip(before["trials"], sweep["trials"], strict=False)):
            raise UserError(f"{workdir} holds another sweep, see {path.name} there; give another --workdir")
    make_folder(workdir)
    write_json(path, sweep)


def launch(trials: Sequence[Trial], todo: Sequence[Trial], report: Report, workdir: Path) -> None:
    """Run trials where the flags say."""
    if _LAUNCHER.value == "local":
        launch_local(todo, report, retries=_RETRIES.value, parallel=_PARALLEL.value or 1)
    elif _LAUNCHER.value == "slurm":
        options: dict[str, Any] = {"timeout_min": round(60 * _HOURS.value), "cpus_per_task": _CPUS.value}
        if _ACCELERATORS.value:
            options["gpus_per_node"] = _ACCELERATORS.value
        if _PARTITION.value:
            options["slurm_partition"] = _PARTITION.value
        common: dict[str, Any] = {"retries": _RETRIES.value, "parallel": _PARALLEL.value, "cluster": _CLUSTER.value}
        launch_slurm(todo, report, folder=workdir / "slurm", **common, **options)
    else:
        with needs("ray"):
            from experiments.sweeps.launch_ray import launch_ray
        resources = {"CPU": float(_CPUS.value), _KIND.value: float(_ACCELERATORS.value)}
        longest = max(trial.num_steps for trial in trials)
        early = _EARLY.value and any(trial.validates for trial in trials)
        if _EARLY.value and not early:
            refuse_unused(
                ["early_stopping", "grace_steps"], unless=False, reason="without --config.validate_every=STEPS"
            )
            console.print("No early stopping: that needs --config.validate_every=STEPS")
        launch_ray(
            # Early stopping compares with the scores of trials that are done.
            [trial for trial in trials if trial in todo or (early and read_outcome(trial).state != "failed")],
            report,
            folder=workdir / "ray",
            retries=_RETRIES.value,
            parallel=_PARALLEL.value,
            address=_ADDRESS.value,
            resources={name: count for name, count in resources.items() if count},
            grace_steps=(_GRACE.value or max(1, longest // 9)) if early else 0,
        )


def conclude(trials: Sequence[Trial], workdir: Path) -> None:
    """Print and write the table, the best configuration and the plot.

    Raises:
      UserError: if no trial has a score.
    """
    rows, keys = results(trials), swept_keys(trials)
    write_csv(workdir / "results.csv", rows)
    console.print(result_table(rows, keys, f"{len(rows)} trials, the best first"))
    best = next(trial for trial in trials if trial.name == rows[0]["trial"])
    if not read_scores(best):
        raise UserError(
            f"no trial came to its end; the first said: {rows[0]['error']}; see log.txt of each in {workdir}"
        )
    write_json(workdir / "best.json", {"changes": best.changes, "scores": read_scores(best), "folder": best.folder})
    console.print(f"Best: {' '.join(flag(key, value) for key, value in best.changes.items()) or 'nothing changed'}")
    written = ["results.csv", "best.json"]
    try:
        write_plot(workdir / "results.png", rows, keys)
        written.append("results.png")
    except MissingExtraError as error:
        console.print(f"no plot was drawn: {error}")
    console.print(f"{', '.join(written)} are in {workdir}; enhance with --checkpoint={best.folder}")


if __name__ == "__main__":
    require("sweep")
    run(main, prefix=PREFIX)
