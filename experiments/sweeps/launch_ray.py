"""Trials of a sweep on Ray Tune: on this machine or a cluster, with weak ones stopped early.

Ray places, counts, retries and stops; what happened is recorded in the folders of the trials. An interrupted sweep is
therefore not restored from Ray's own files: trials that are done report their recorded scores once more, so that early
stopping knows what it knew, and the others continue from their checkpoints.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import init, shutdown, tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from experiments.sweeps.launchers import Report
from experiments.sweeps.trials import FINAL, Trial, read_outcome, read_scores, read_validations, record, start, stop

# Seconds that a trial gets to save its state when it is stopped, and between looks at its files.
_GRACE, _POLL = 45.0, 0.5


class Training(tune.Trainable):
    """A trial in a process of its own, which reports every validation."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start or continue the process; a trial that is done has none."""
        self._trial = Trial(**config["trial"])
        self._step, self._score = 0, float("-inf")
        self._process = None if _has_ended(self._trial) else start(self._trial)

    def step(self) -> dict[str, Any]:
        """Wait for the next validation, or the end.

        Raises:
          RuntimeError: if the process failed; Ray tries it again.
        """
        while True:
            # Asked before the files are read: an ended process writes nothing after that.
            code = self._process.poll() if self._process else 0
            for step, score in read_validations(self._trial):
                if step > self._step:
                    return self._result(step, score)
            if code is not None:
                break
            time.sleep(_POLL)
        if code:
            raise RuntimeError(f"{self._trial.name} ended with status {code}; see {self._trial.folder}/log.txt")
        scores = read_scores(self._trial)
        if not scores:  # it was stopped early
            return {**self._result(self._step, self._score), "done": True}
        return {**self._result(self._trial.num_steps, scores[FINAL]), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: training has its own checkpoints, and continues from them wherever it starts again."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, as above."""

    def cleanup(self) -> None:
        """End the process if it still runs."""
        if self._process:
            stop(self._process, _GRACE)

    def _result(self, step: int, score: float | None) -> dict[str, Any]:
        self._step = step
        self._score = float("inf") if score is None else score  # the PSNR of identical images
        return {"step": step, FINAL: self._score}


class _Recorder(tune.Callback):
    """Writes down in the folders how attempts ended, and reports trials that are done."""

    def __init__(self, report: Report):
        self._report, self._began = report, dict[str, float]()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles all that it is given, to restore it; nothing is restored here, and a report can't be pickled."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._began[trial.trial_id] = time.monotonic()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._record(trial, "failed")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._record(trial, "failed")
        self._report(_ours(trial), read_outcome(_ours(trial)))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if read_outcome(_ours(trial)).state in ("finished", "stopped"):
            return  # it was before this sweep was continued
        self._record(trial, "finished" if read_scores(_ours(trial)) else "stopped")
        self._report(_ours(trial), read_outcome(_ours(trial)))

    def _record(self, trial: Any, state: str) -> None:
        now = time.monotonic()
        record(_ours(trial), state, now - self._began.get(trial.trial_id, now))
        self._began[trial.trial_id] = now


def launch_ray(
    trials: Sequence[Trial],
    report: Report,
    *,
    folder: Path,
    retries: int,
    parallel: int,
    address: str,
    resources: dict[str, float],
    grace_steps: int,
) -> None:
    """Run trials on Ray Tune.

    Args:
      trials: those of the whole sweep; their folders must be visible to all machines of a cluster.
      report: called when a trial is done.
      folder: for Ray's own files.
      retries: for each trial, whether it crashes or its machine is lost.
      parallel: most trials at once; 0 for as many as there are resources for.
      address: of a cluster, or "" for this machine.
      resources: of each trial, as Ray names them: CPU, GPU, TPU.
      grace_steps: training steps before a weak trial may be stopped (ASHA); 0 to stop none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What went wrong is told by `report`, in a line instead of a page.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    last = max(trial.num_steps for trial in trials)
    scheduler: TrialScheduler = FIFOScheduler()
    if grace_steps:
        # Beyond the last step, or it would stop trials before their final validation.
        scheduler = AsyncHyperBandScheduler("step", max_t=last + 1, grace_period=grace_steps, reduction_factor=3)
    if address:
        init(address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        tune.Tuner(
            tune.with_resources(Training, resources),
            param_space={"trial": tune.grid_search([dataclasses.asdict(trial) for trial in trials])},
            tune_config=tune.TuneConfig(
                metric=FINAL,
                mode="max",
                scheduler=scheduler,
                max_concurrent_trials=parallel or None,
                trial_dirname_creator=lambda trial: f"{_ours(trial).name}_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=time.strftime("%Y%m%d-%H%M%S"),
                storage_path=str(folder),
                callbacks=[_Recorder(report)],
                failure_config=tune.FailureConfig(max_failures=retries),
                verbose=0,
            ),
        ).fit()
    finally:
        shutdown()


def _ours(trial: Any) -> Trial:
    return Trial(**trial.config["trial"])


def _has_ended(trial: Trial) -> bool:
    return bool(read_scores(trial)) or read_outcome(trial).state in ("finished", "stopped")
