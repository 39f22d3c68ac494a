"""What a run tells on its way: metrics as JSON lines, and the steps that had to be skipped."""

import json
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from sel.files import write_whole
from sel.training.config import Config
from sel.training.hooks import Hooks, Line

# Beside the checkpoints of a run.
METRICS, SKIPPED = "metrics.jsonl", "skipped.jsonl"

# Steps whose results are not awaited yet. Unbounded, the host runs away from its devices: memory grows, and several CPU
# devices deadlock.
_IN_FLIGHT = 8


class Record:
    """Awaits the metrics of past steps and writes their means as lines of `metrics.jsonl`.

    A line covers the steps since the line before. Steps whose loss or gradient is not finite are
    counted there, and listed with the images of their batch in `skipped.jsonl`. Only the first process writes.
    """

    def __init__(
        self,
        workdir: Path,
        config: Config,
        learning_rate: optax.Schedule,
        start: int,
        names: Sequence[str],
        hooks: Hooks,
    ):
        """Go on after step `start`: lines of later steps are dropped.

        Args:
          workdir: gets the files.
          config: when a line is due.
          learning_rate: from steps done to the rate of the next.
          start: steps done before.
          names: of the training images.
          hooks: told of each step and of each line.
        """
        self._workdir, self._config, self._learning_rate = workdir, config, jax.jit(learning_rate)
        self._names, self._hooks = names, hooks
        self._pending: deque[tuple[int, Any, np.ndarray]] = deque()
        self._done: list[dict[str, float]] = []
        self._time = time.monotonic()
        self._writes = jax.process_index() == 0
        self.step, self.last_good, self.skipped_in_a_row = start, start, 0
        if self._writes:
            workdir.mkdir(parents=True, exist_ok=True)
            for name in (METRICS, SKIPPED):
                _keep_lines(workdir / name, start)

    def add(self, step: int, metrics: Any, images: np.ndarray) -> None:
        """Note a step that was begun, with the numbers of its images; await the one eight steps before."""
        self._pending.append((step, metrics, images))
        if len(self._pending) > _IN_FLIGHT:
            self._await_one()

    def wait(self) -> None:
        """Await every step that was begun."""
        while self._pending:
            self._await_one()

    def flush(self) -> None:
        """Await every step, and write a line for those that no line covers yet.

        Due before each checkpoint, so that the lines of a run that was continued are those of one that never stopped.
        """
        self.wait()
        if self._done:
            self._write()

    def append(self, line: Line) -> None:
        """Add a line to `metrics.jsonl`."""
        self._append(METRICS, line)
        self._hooks.on_log(line)

    def _await_one(self) -> None:
        self.step, metrics, images = self._pending.popleft()
        values = {name: float(value) for name, value in metrics.items()}
        if math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"]):
            self.last_good, self.skipped_in_a_row = self.step, 0
        else:
            self.skipped_in_a_row += 1
            found = {name: str(value) for name, value in values.items()}
            self._append(SKIPPED, {"step": self.step, **found, "images": [self._names[i] for i in images]})
        self._done.append(values)
        if self.step % self._config.log_every == 0:
            self._write()
        self._hooks.on_step_end(self.step, values)

    def _write(self) -> None:
        now, count = time.monotonic(), len(self._done)
        finite = [values for values in self._done if all(map(math.isfinite, values.values()))]
        line: Line = {"step": self.step}
        for name in self._done[0]:
            line[name] = sum(values[name] for values in finite) / len(finite) if finite else None
        line["learning_rate"] = float(self._learning_rate(self.step - 1))
        line["skipped"] = count - len(finite)
        line["steps_per_second"] = count / (now - self._time)
        line["images_per_second"] = line["steps_per_second"] * self._config.batch_size
        self.append(line)
        self._done, self._time = [], now

    def _append(self, name: str, line: Line) -> None:
        if self._writes:
            with (self._workdir / name).open("a") as file:
                file.write(json.dumps(line) + "\n")


def _keep_lines(path: Path, last_step: int) -> None:
    """Drop the lines of steps that are done again, and one that was cut off by a crash."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_whole(path, b"".join(kept))
