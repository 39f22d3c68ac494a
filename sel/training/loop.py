"""The loop: batches in, steps bounded in flight, metrics and checkpoints out."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from sel.data import Pair, batches
from sel.errors import UserError
from sel.training.build import Parts, build_dataset, build_parts
from sel.training.checkpoint import latest_step
from sel.training.config import Config
from sel.training.fine_tuning import find_init, read_init
from sel.training.hooks import Hooks
from sel.training.record import SKIPPED, Record
from sel.training.run_checkpoints import RANKED_BY, Checkpoints
from sel.training.sharding import check_batch_size, gather, make_mesh, replicated, shard_batch, state_shardings
from sel.training.state import TrainState, abstract_state, first_state, init_state
from sel.training.step import make_train_step


class Stopped(Exception):  # noqa: N818  nothing went wrong
    """Training was asked to stop, and has saved the state of `step`."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}, which is saved")
        self.step = step


def train(config: Config, workdir: Path, pairs: Sequence[Pair], *, hooks: Hooks = Hooks()) -> TrainState:
    """Train to `config.num_steps`, from the last checkpoint in `workdir` if there is one.

    Step n depends on the configuration and n alone, so that an interrupted run ends with the same parameters, bit for
    bit. With several processes, all call this alike, with a `workdir` that all of them see; what is written but
    checkpoints is the first one's.

    Args:
      config: see docs/configuration.md.
      workdir: gets `checkpoints/`, `metrics.jsonl` and, if there are any, `skipped.jsonl`.
      pairs: training pairs.
      hooks: what is done on the way.

    Returns:
      The final state.

    Raises:
      UserError: for a wrong option, a folder of another run, a checkpoint that can't be written, or
        `config.max_skipped` steps in a row without a finite gradient, after which the last good state is saved.
      Stopped: if `hooks.should_stop` returned True.
    """
    parts, compute = build_parts(config), config.compute
    check_batch_size(config.batch_size, compute.accumulate)
    mesh = make_mesh(compute.parameter_shards)
    key_init, key_steps = jax.random.split(jax.random.key(config.seed))
    dataset, names = build_dataset(config, pairs), [pair.name for pair in pairs]
    # A run that goes on has no need of the one that it began with.
    origin = None if latest_step(workdir) else find_init(config)
    with Checkpoints(workdir, config, hooks.on_message) as checkpoints:
        state = _begin(config, parts, mesh, checkpoints, key_init, origin)
        step_fn = make_train_step(
            parts.module.clone(remat=compute.remat),
            parts.objective,
            parts.optimizer,
            parts.update_average,
            mesh,
            jax.tree.map(lambda x: x.sharding, state),
            accumulate=compute.accumulate,
        )
        start = int(state.step)
        record = Record(workdir, config, parts.learning_rate, start, names, hooks)
        with contextlib.closing(batches(dataset, start)) as source:
            for step in range(start + 1, config.num_steps + 1):
                hooks.on_step_begin(step, record.wait)
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    batch = next(source)
                    arguments = (state, shard_batch(batch, mesh), key_steps)
                    if step == start + 1:  # the call below finds what is compiled here
                        hooks.on_train_begin(step_fn.lower(*arguments).compile())  # type: ignore[attr-defined]
                    state, metrics = step_fn(*arguments)
                record.add(step, metrics, batch["index"])
                if record.skipped_in_a_row >= config.max_skipped:
                    _save(state, {}, record, checkpoints)
                    _check_progress(record, checkpoints, config.max_skipped)
                # Before the checkpoint: a run that goes on from this step has the line.
                scores = {}
                if config.validate_every and step % config.validate_every == 0:
                    record.wait()
                    scores = _scores(hooks, step, gather(state.average, mesh))
                    if scores:
                        record.append({"step": step, **scores})
                stop = hooks.should_stop(step) and step < config.num_steps
                if stop or _is_due(step, config, scores):
                    _save(state, scores, record, checkpoints)
                    _check_progress(record, checkpoints, config.max_skipped)
                if stop:
                    raise Stopped(step)
    return dataclasses.replace(state, average=gather(state.average, mesh))


def _is_due(step: int, config: Config, scores: dict[str, float]) -> bool:
    """Whether a checkpoint is."""
    ranked = config.checkpoint.keep_best and RANKED_BY in scores
    return bool(step % config.checkpoint.every == 0 or step == config.num_steps or ranked)


def _scores(hooks: Hooks, step: int, average: Any) -> dict[str, float]:
    """The first process's scores, of which all know the one that checkpoints are ranked by."""
    scores = hooks.on_validation(step, average) if jax.process_index() == 0 else {}
    if jax.process_count() == 1:
        return scores
    rank = multihost_utils.broadcast_one_to_all(np.float32(scores.get(RANKED_BY, np.nan)))
    return {**scores, RANKED_BY: float(rank)}


def _save(state: TrainState, scores: dict[str, float], record: Record, checkpoints: Checkpoints) -> None:
    """Save the state as that of the last step that changed it: a run that goes on tries those after it again."""
    record.flush()
    if record.last_good > checkpoints.latest:
        step = jax.device_put(np.int32(record.last_good), state.step.sharding)
        checkpoints.save(dataclasses.replace(state, step=step), scores)


def _check_progress(record: Record, checkpoints: Checkpoints, limit: int) -> None:
    count = record.skipped_in_a_row
    if count < limit:  # a step in flight was good
        return
    raise UserError(
        f"none of the last {count} steps, {record.step - count + 1} to {record.step}, had a finite loss and gradient: "
        f"training stopped. The state after step {record.last_good} is kept in {checkpoints.folder}; the images of "
        f"these steps are listed in {checkpoints.folder.with_name(SKIPPED)}. In a new folder, a lower "
        "config.optimizer.learning_rate may help, with config.init_from to begin with these parameters"
    )


def _begin(
    config: Config, parts: Parts, mesh: Mesh, checkpoints: Checkpoints, key: PRNGKeyArray, origin: Path | None
) -> TrainState:
    """The state of the newest checkpoint, or new, with the parameters of another run or random ones."""
    abstract = abstract_state(parts.module, parts.optimizer)
    shardings = state_shardings(abstract, mesh)
    if checkpoints.latest:
        return checkpoints.restore(abstract, shardings)
    if origin:
        tuned = functools.partial(first_state, optimizer=parts.optimizer)
        params = read_init(origin, config, replicated(mesh))
        return jax.jit(tuned, out_shardings=shardings, donate_argnums=0)(params)
    init = functools.partial(init_state, module=parts.module, optimizer=parts.optimizer)
    # It runs once: optimizing it would take a CPU longer than everything before the first step.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(init, out_shardings=shardings, compiler_options=options)(key)
