"""The checkpoints of one run: written in the background, the newest and the best kept, damaged ones passed over."""

import contextlib
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from sel.choices import differences, to_dict
from sel.digests import write_digests
from sel.errors import DamagedError, UserError
from sel.files import make_folder
from sel.lock import HeldError, hold
from sel.training.checkpoint import FOLDER, check, damaged, read_config, read_metadata, reading, steps_in
from sel.training.config import Config, ModelConfig
from sel.training.state import TrainState

# What the best checkpoints are the best by: of the validation on the way.
RANKED_BY = "validation_psnr"

_SMALLEST_SLICE = 2**20  # bytes

# How the names of checkpoints begin that are being written, or deleted.
_NEW, _OLD = ".new.", ".old."

# Held by the process that trains there.
_LOCK = ".lock"


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
          tell: called if a checkpoint is damaged, or if the disk offers no locks.

        Raises:
          UserError: if it holds checkpoints of a run with another configuration, or only damaged ones, or another
            process trains in it.
        """
        self._config = to_dict(config, stored=True)
        self.folder, self._tell = workdir / FOLDER, tell
        stored = _newest_config(self.folder)
        different = differences(to_dict(stored, stored=True), self._config) if stored else []
        if different:
            raise UserError(
                f"{workdir} holds a run with another configuration: {'; '.join(different[:5])}. "
                "Continue it with the same configuration, or begin in another folder"
            )
        self._keep, self._keep_best = config.checkpoint.keep, config.checkpoint.keep_best
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._lock = contextlib.ExitStack()
        if jax.process_index() == 0:
            self._hold(workdir)
            _remove_unfinished(self.folder)
        self.latest = max(steps_in(self.folder), default=0)

    def _hold(self, workdir: Path) -> None:
        make_folder(workdir)
        try:
            held = self._lock.enter_context(hold(workdir / _LOCK))
        except HeldError as error:
            raise UserError(f"{workdir}: another training runs in this folder ({error}); choose another one") from None
        if held is None:
            self._tell(f"{workdir}: this disk offers no locks; make sure that no other training runs in this folder")

    def save(self, state: TrainState, scores: Mapping[str, float] | None = None) -> None:
        """Begin to write the state as the checkpoint of its step, after the one before is complete.

        Args:
          state: with a step that has no checkpoint yet.
          scores: of its average, as far as they are known.

        Raises:
          UserError: if the one before could not be written.
        """
        metadata: dict[str, Any] = {"config": self._config}
        if scores and RANKED_BY in scores:
            metadata["scores"] = {RANKED_BY: scores[RANKED_BY]}
        # Of an array that several devices hold, Orbax lets each write a slice, which is a program to compile for each
        # shape and device: seconds at the first checkpoint, for arrays that are small. Large ones are worth it.
        saving = ocp.options.ArrayOptions.Saving(min_slice_bytes_for_replica_parallel=_SMALLEST_SLICE)
        with self._writing():
            self._wait()
            step = int(state.step)
            new = self.folder / f"{_NEW}{step}"
            with ocp.Context(array_options=ocp.options.ArrayOptions(saving=saving)):
                response = ocp.save_async(new.absolute(), state, custom_metadata=metadata)
            self.latest = step
            self._pending = self._thread.submit(self._complete, response.result, new, step)

    def _complete(self, written: Callable[[], Any], new: Path, step: int) -> None:
        """Wait until all is written; then add the digests, give the checkpoint its name, and delete old ones."""
        written()
        if jax.process_index() > 0:
            return
        write_digests(new)
        new.rename(self.folder / str(step))
        steps = sorted(steps_in(self.folder))
        ranks = {step: rank for step in steps if (rank := _rank(self.folder / str(step))) is not None}
        best = sorted(ranks, key=lambda step: (ranks[step], step))[-self._keep_best :] if self._keep_best else []
        for step in set(steps[: -self._keep]) - {*best}:
            # Under another name first: half of a checkpoint would pass for a damaged one.
            gone = (self.folder / str(step)).rename(self.folder / f"{_OLD}{step}")
            shutil.rmtree(gone)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

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
                with reading(path, _agreed(path)):
                    state = ocp.load(path.absolute(), like)
            except DamagedError:
                if step == steps[-1]:
                    raise DamagedError(damaged(self.folder / str(steps[0]))) from None
                continue
            for other in steps[:number]:
                name = self._set_aside(other)
                self._tell(f"the checkpoint of step {other} is damaged and now called {name}; going on from {step}")
            self.latest = step
            return state
        raise UserError(f"{self.folder} holds no checkpoint")

    def _set_aside(self, step: int) -> str:
        names = (f"{step}.damaged{number}" for number in itertools.chain([""], itertools.count(2)))
        name = next(name for name in names if not (self.folder / name).exists())
        if jax.process_index() == 0:
            (self.folder / str(step)).rename(self.folder / name)
        multihost_utils.sync_global_devices(name)
        return name

    def __enter__(self) -> "Checkpoints":
        """Use until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is being written."""
        with self._writing():
            try:
                self._wait()
            finally:
                self._thread.shutdown(wait=False)
                self._lock.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk is a ValueError here
            reason = next(iter(str(error).splitlines()), "")
            raise UserError(
                f"{self.folder}: a checkpoint can't be written; complete ones are kept. {reason}"
            ) from error


def _rank(checkpoint: Path) -> float | None:
    """The score that a checkpoint is ranked by; None if it has none, or is damaged."""
    try:
        scores = read_metadata(checkpoint).get("scores")
        if scores is None:  # earlier versions wrote them beside the state
            scores = json.loads((checkpoint / "metrics/metrics").read_bytes())
        score = float(scores[RANKED_BY])
    except (DamagedError, FileNotFoundError, ValueError, LookupError, TypeError):
        return None
    return -math.inf if math.isnan(score) else score


def _agreed(checkpoint: Path) -> bool:
    """`check` of a checkpoint and its configuration; of several processes the first one does it for all of them.

    Raises:
      DamagedError: if it is damaged.
      UserError: if it can't be read.
    """
    problem, whole = None, False
    if jax.process_index() == 0:
        try:
            read_metadata(checkpoint)
            whole = check(checkpoint)
        except UserError as error:
            problem = error
    verdict = [problem is not None, isinstance(problem, DamagedError), whole]
    if jax.process_count() > 1:
        verdict = [bool(x) for x in multihost_utils.broadcast_one_to_all(np.array(verdict))]
    if verdict[0]:
        kind = DamagedError if verdict[1] else UserError
        raise problem or kind(f"{checkpoint}: the first process can't use this checkpoint")
    return verdict[2]


def _remove_unfinished(folder: Path) -> None:
    """Delete what a process that was killed has left, Orbax's own temporary folders included."""
    for pattern in (f"{_NEW}*", f"{_OLD}*", "*.orbax-checkpoint-tmp*"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _newest_config(folder: Path) -> ModelConfig | None:
    """The configuration of a run, or None if there is no checkpoint.

    Raises:
      DamagedError: if none of its checkpoints tells.
      UserError: if one can't be read.
    """
    steps = sorted(steps_in(folder), reverse=True)
    for step in steps:
        try:
            return read_config(folder / str(step))
        except DamagedError:
            continue
    if steps:
        raise DamagedError(damaged(folder / str(steps[0])))
    return None
