"""The loop: batches in, steps bounded in flight, metrics and checkpoints out."""

import contextlib
import functools
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from sel.data import Pair, batches
from sel.errors import UserError
from sel.training.build import Parts, build_dataset, build_parts
from sel.training.checkpoint import Checkpoints, latest_step
from sel.training.config import Section
from sel.training.fine_tuning import find_init, read_init
from sel.training.sharding import check_batch_size, make_mesh, replicated, shard_batch
from sel.training.state import TrainState, first_state, init_state
from sel.training.step import make_train_step

Report = Callable[[int, dict[str, float]], None]
Validate = Callable[[Any], dict[str, float]]

# Steps whose results are not awaited yet. Unbounded, the host runs away from its devices: memory grows, and several CPU
# devices deadlock.
_IN_FLIGHT = 8


def train(
    config: Section, workdir: Path, pairs: Sequence[Pair], report: Report, *, validate: Validate | None = None
) -> TrainState:
    """Train to `config.num_steps`, from the last checkpoint in `workdir` if there is one.

    Step n depends on the configuration and n alone, so that an interrupted run ends with the same parameters, bit for
    bit.

    Args:
      config: see `configs/default.py`.
      workdir: gets `checkpoints/` and `metrics.jsonl`.
      pairs: training pairs.
      report: called after each step with its number, its loss and its gradient norm.
      validate: scores averaged parameters, every `config.validate_every` steps, for `metrics.jsonl`.

    Returns:
      The final state.

    Raises:
      UserError: for a wrong option, a folder of another run, or a loss that is not finite; checkpoints are left as
        they were.
    """
    parts = build_parts(config)
    check_batch_size(config["batch_size"])
    mesh = make_mesh()
    step_fn = make_train_step(
        parts.module,
        parts.schedule,
        parts.loss_fn,
        parts.optimizer,
        mesh,
        ema_decay=config["ema"]["decay"],
        ema_every=config["ema"]["every"],
        neighbor_weights=parts.neighbor_weights,
    )
    dataset = build_dataset(config, pairs)
    # A run that goes on has no need of it any more.
    origin = None if latest_step(workdir) else find_init(config)
    key_init, key_steps = jax.random.split(jax.random.key(config["seed"]))
    with Checkpoints(workdir, config) as checkpoints:
        if origin:
            state = _tuned_state(origin, config, parts, mesh)
        else:
            state = _first_state(checkpoints, parts, key_init, mesh)
        start = int(state.step)
        record = _Record(workdir / "metrics.jsonl", config, parts.learning_rate, start, report)
        with contextlib.closing(batches(dataset, start)) as source:
            for step in range(start + 1, config["num_steps"] + 1):
                state, metrics = step_fn(state, shard_batch(next(source), mesh), key_steps)
                record.add(step, metrics)
                # Before the checkpoint: a run that goes on from this step has the line.
                if validate and config["validate_every"] and step % config["validate_every"] == 0:
                    record.wait()
                    record.append({"step": step, **validate(state.average)})
                if step % config["checkpoint"]["every"] == 0 or step == config["num_steps"]:
                    record.wait()
                    checkpoints.save(state)
    return state


def _first_state(checkpoints: Checkpoints, parts: Parts, key: PRNGKeyArray, mesh: Mesh) -> TrainState:
    """The last checkpoint, or fresh parameters, on every device."""
    init = functools.partial(init_state, module=parts.module, optimizer=parts.optimizer)
    everywhere = replicated(mesh)
    if not checkpoints.latest:
        # It runs once: optimizing it would take a CPU longer than everything before the first step.
        options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        return jax.jit(init, out_shardings=everywhere, compiler_options=options)(key)
    abstract = jax.eval_shape(init, key)
    return checkpoints.restore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), abstract)
    )


def _tuned_state(origin: Path, config: Section, parts: Parts, mesh: Mesh) -> TrainState:
    """The parameters of another checkpoint, on every device, and a fresh optimizer."""
    everywhere = replicated(mesh)
    init = functools.partial(first_state, optimizer=parts.optimizer)
    return jax.jit(init, out_shardings=everywhere, donate_argnums=0)(read_init(origin, config, everywhere))


class _Record:
    """Awaits the metrics of past steps, stops on one that is not finite, and writes their means as JSON lines.

    A line covers the steps since the line before. One is also written at each checkpoint, so that the lines of a run
    that was interrupted and continued are those of one that was not.
    """

    def __init__(self, path: Path, config: Section, learning_rate: optax.Schedule, start: int, report: Report):
        self._path, self._learning_rate, self._report = path, learning_rate, report
        self._every = (config["log_every"], config["checkpoint"]["every"])
        self._last = config["num_steps"]
        self._pending: deque[tuple[int, Any]] = deque()
        self._done: list[dict[str, float]] = []
        self._time = time.monotonic()
        _keep_lines(path, start)

    def add(self, step: int, metrics: Any) -> None:
        self._pending.append((step, metrics))
        if len(self._pending) > _IN_FLIGHT:
            self._await_one()

    def wait(self) -> None:
        while self._pending:
            self._await_one()

    def _await_one(self) -> None:
        step, metrics = self._pending.popleft()
        values = {name: float(value) for name, value in metrics.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise UserError(
                    f"the {name.replace('_', ' ')} of step {step} is {value}: training stopped. Checkpoints of steps "
                    f"before it are kept in {self._path.parent}. In a new folder, a lower "
                    "config.optimizer.learning_rate may help"
                )
        self._done.append(values)
        if step == self._last or any(step % every == 0 for every in self._every):
            self._write(step)
        self._report(step, values)

    def _write(self, step: int) -> None:
        now, count = time.monotonic(), len(self._done)
        line = {name: sum(values[name] for values in self._done) / count for name in self._done[0]}
        rates = {"learning_rate": float(self._learning_rate(step - 1)), "steps_per_second": count / (now - self._time)}
        self.append({"step": step, **line, **rates})
        self._done, self._time = [], now

    def append(self, line: dict[str, float | int]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _keep_lines(path: Path, last_step: int) -> None:
    """Drop the lines of steps that are done again, and one that was cut off by a crash."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError):
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, path)
