"""Trials of a sweep that take a tenth of a second, crash or hang as they are told."""

import contextlib
import os
import sys
import time
from pathlib import Path

from experiments.sweeps.trials import Trial, trial_name

# A program that behaves like training, in a tenth of a second. It goes on from the step it reached, and crashes or
# hangs as it is told.
FAKE = """
import json, os, pathlib, signal, sys, time
folder, kind, score, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
with (folder / "runs.txt").open("a") as file:
    file.write(f"start {os.getpid()} {time.time()}\\n")
signal.signal(signal.SIGTERM, lambda *_: ((folder / "saved").touch(), sys.exit(3)))
first = len((folder / "runs.txt").read_text().splitlines()) == 1
if kind == "crash" or (kind == "once" and first):
    sys.exit("error: the value is impossible")
with (folder / "metrics.jsonl").open("a") as file:
    for step in range(1, 9):
        time.sleep(seconds / 8)
        print(json.dumps({"step": step, "validation_psnr": score + step}), file=file, flush=True)
if kind == "hang" and first:
    time.sleep(600)
(folder / "validation.json").write_text(json.dumps([{"name": "mean", "psnr": score + 10, "ssim": 0.5}]))
with (folder / "runs.txt").open("a") as file:
    file.write(f"end {os.getpid()} {time.time()}\\n")
"""


def make_trial(root, index, kind="fine", score=0.0, seconds=0.05, **changes):
    changes = changes or {"x": index}
    name = trial_name(index, changes)
    folder = str(root / "trials" / name)
    return Trial(name, changes, folder, (sys.executable, "-c", FAKE, folder, kind, str(score), str(seconds)), 9, True)


def runs(trial):
    path = Path(trial.folder) / "runs.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False
