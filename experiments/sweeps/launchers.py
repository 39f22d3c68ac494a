"""Where the trials of a sweep run: here, or as jobs of a Slurm cluster. Ray has a file of its own."""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.sweeps.trials import Outcome, Trial, is_done, read_outcome, record, start
from sel.errors import UserError
from sel.extras import needs

Report = Callable[[Trial, Outcome], None]

# Seconds between looks at the jobs of a cluster; Slurm's controller is shared with others.
_POLL = {"slurm": 10.0, "local": 0.5}


def attempt(trial: Trial, environment: dict[str, str] | None = None) -> Outcome:
    """Run a trial once, to its end."""
    began = time.monotonic()
    code = start(trial, environment).wait()
    return record(trial, "failed" if code else "finished", time.monotonic() - began)


def launch_local(trials: Sequence[Trial], report: Report, *, retries: int, parallel: int) -> None:
    """Run trials as processes of this machine, `parallel` at once; their accelerators are divided among these."""
    todo: queue.SimpleQueue[Trial] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[Trial, Outcome | Exception]] = queue.SimpleQueue()
    for trial in trials:
        todo.put(trial)

    def work(environment: dict[str, str]) -> None:
        while True:
            try:
                trial = todo.get_nowait()
            except queue.Empty:
                return
            try:
                outcome = attempt(trial, environment)
                while not is_done(trial, retries):
                    outcome = attempt(trial, environment)
                ended.put((trial, outcome))
            except Exception as error:  # a full disk, say: not of the training, but of the sweep
                ended.put((trial, error))

    for environment in environments(parallel):
        # Threads that nobody waits for: at Ctrl-C this process ends at once, and its trials with it.
        threading.Thread(target=work, args=(environment,), daemon=True).start()
    for _ in trials:
        trial, outcome = ended.get()
        if isinstance(outcome, Exception):
            raise outcome
        report(trial, outcome)


def environments(parallel: int) -> list[dict[str, str]]:
    """For each of the trials that run at once, its share of CUDA_VISIBLE_DEVICES if that is set.

    Raises:
      UserError: if there are fewer devices than trials.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if not visible:
        return [{} for _ in range(parallel)]
    if len(visible) < parallel:
        raise UserError(f"--parallel={parallel} needs as many GPUs; CUDA_VISIBLE_DEVICES names {len(visible)}")
    return [{"CUDA_VISIBLE_DEVICES": ",".join(visible[i::parallel])} for i in range(parallel)]


def launch_slurm(
    trials: Sequence[Trial], report: Report, *, folder: Path, retries: int, parallel: int, cluster: str, **options: Any
) -> None:
    """Run trials as an array of Slurm jobs; one that failed is submitted again.

    Args:
      trials: their folders must be visible to all machines of the cluster.
      report: called when a trial is done.
      folder: for the files of the jobs.
      retries: attempts after the first.
      parallel: most jobs at once; 0 for no limit.
      cluster: `slurm`; `local` stands in for it on one machine.
      options: of submitit's `AutoExecutor.update_parameters`.

    Raises:
      MissingExtraError: submitit is not installed.
    """
    with needs("slurm"):
        import submitit

    class Job(submitit.helpers.Checkpointable):
        """A job that Slurm preempts, or that reaches its time limit, is queued again and continues."""

        def __call__(self, trial: Trial) -> Outcome:
            return attempt(trial)

    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(name="sel", slurm_array_parallelism=parallel or len(trials), **options)
    jobs = list(zip(executor.map_array(Job(), trials), trials, strict=True))
    try:
        while jobs:
            time.sleep(_POLL[cluster])
            for job, trial in [pair for pair in jobs if pair[0].done()]:
                jobs.remove((job, trial))
                if job.exception() is not None:  # the job was killed, and could record nothing
                    record(trial, "failed", 0.0)
                if is_done(trial, retries):
                    report(trial, read_outcome(trial))
                else:
                    jobs.append((executor.submit(Job(), trial), trial))
    except KeyboardInterrupt:
        for job, _ in jobs:
            job.cancel()
        raise
