"""The checkpoints of one run: written in the background, the newest and the best kept, damaged ones passed over."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from sel.choices import differences, to_dict
from sel.errors import UserError
from sel.training.checkpoint import FOLDER, damaged_error, read_config, steps_in
from sel.training.config import Config, ModelConfig
from sel.training.state import TrainState

# What the best checkpoints are the best by: of the validation on the way.
RANKED_BY = "validation_psnr"

_SMALLEST_SLICE = 2**20  # bytes


class Checkpoints:
    """The checkpoints of one run: state, average, optimizer, step and configuration, of which data and chance follow.

    Saving is atomic and goes on in the background; leaving the context waits for it. The newest
    `config.checkpoint.keep` are kept, and the best `keep_best`.

    Attributes:
      folder: where they are.
      latest: step of the newest, which may still be being written; 0 if there is none.
    """

    def __init__(self, workdir: Path, config: Config, tell: Callable[[str], object]):
        """Open `workdir`, which may be new.

        Args:
          workdir: of the run.
          config: of the run. What its section `compute` says is no part of it: it may go on elsewhere.
          tell: called if a checkpoint is damaged.

        Raises:
          UserError: if it holds checkpoints of a run with another configuration, or only damaged ones.
        """
        self._config = to_dict(config, stored=True)
        self.folder, self._tell = workdir / FOLDER, tell
        self.latest = max(steps_in(self.folder), default=0)
        stored = _newest_config(self.folder)
        different = differences(to_dict(stored, stored=True), self._config) if stored else []
        if different:
            raise UserError(
                f"{workdir} holds a run with another configuration: {'; '.join(different[:5])}. "
                "Continue it with the same configuration, or begin in another folder"
            )
        policies = ocp.training.preservation_policies
        keep: list[Any] = [policies.LatestN(config.checkpoint.keep)]
        if config.checkpoint.keep_best:
            best = config.checkpoint.keep_best
            keep.append(policies.BestN(get_metric_fn=_rank, n=best, keep_checkpoints_without_metrics=False))
        # Of an array that several devices hold, Orbax lets each write a slice, which is a program to compile for each
        # shape and device: seconds at the first checkpoint, for arrays that are small. Large ones are worth it.
        saving = ocp.options.ArrayOptions.Saving(min_slice_bytes_for_replica_parallel=_SMALLEST_SLICE)
        self._checkpointer = ocp.training.Checkpointer(
            self.folder.absolute(),
            context=ocp.Context(array_options=ocp.options.ArrayOptions(saving=saving)),
            preservation_policy=policies.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=True,
        )

    def save(self, state: TrainState, scores: Mapping[str, float] | None = None) -> None:
        """Begin to write the state as the checkpoint of its step, after the one before is complete.

        Args:
          state: with a step that has no checkpoint yet.
          scores: of its average, as far as they are known.

        Raises:
          UserError: if the one before could not be written.
        """
        metrics = {RANKED_BY: scores[RANKED_BY]} if scores and RANKED_BY in scores else None
        with self._writing():
            self.latest = int(state.step)
            # Without force a step is passed over while another is being written.
            self._checkpointer.save_async(
                self.latest, state, force=True, metrics=metrics, custom_metadata={"config": self._config}
            )

    def restore(self, abstract: TrainState, shardings: TrainState) -> TrainState:
        """Read the newest checkpoint that is whole. Damaged ones after it are renamed, so that their steps are free.

        Args:
          abstract: shapes and types.
          shardings: where its arrays are to lie, whatever devices wrote it.

        Raises:
          UserError: if all are damaged.
        """
        like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
        steps = sorted(steps_in(self.folder), reverse=True)
        for number, step in enumerate(steps):
            path = self.folder / str(step)
            try:
                read_config(path)
                state = ocp.load(path.absolute(), like)
            except Exception as error:  # whatever a reader stumbles upon in a damaged file
                if "RESOURCE_EXHAUSTED" in str(error):  # it may be whole
                    raise
                if step == steps[-1]:
                    raise damaged_error(self.folder / str(steps[0])) from error
                continue
            for damaged in steps[:number]:
                name = self._set_aside(damaged)
                self._tell(f"the checkpoint of step {damaged} is damaged and now called {name}; going on from {step}")
            self.latest = step
            return state
        raise UserError(f"{self.folder} holds no checkpoint")

    def _set_aside(self, step: int) -> str:
        names = (f"{step}.damaged{number}" for number in itertools.chain([""], itertools.count(2)))
        name = next(name for name in names if not (self.folder / name).exists())
        if jax.process_index() == 0:
            (self.folder / str(step)).rename(self.folder / name)
        multihost_utils.sync_global_devices(name)
        self._checkpointer.reload()
        return name

    def __enter__(self) -> "Checkpoints":
        """Use until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is being written."""
        with self._writing():
            self._checkpointer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk is a ValueError here
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.folder}: a checkpoint can't be written; complete ones are kept. {reason}"
            ) from error


def _rank(metrics: Mapping[str, float]) -> float:
    score = metrics[RANKED_BY]
    return -math.inf if math.isnan(score) else score


def _newest_config(folder: Path) -> ModelConfig | None:
    """The configuration of a run, or None if there is no checkpoint.

    Raises:
      UserError: if none of its checkpoints tells.
    """
    steps = sorted(steps_in(folder), reverse=True)
    for step in steps:
        try:
            return read_config(folder / str(step))
        except UserError:
            continue
    if steps:
        raise damaged_error(folder / str(steps[0]))
    return None
