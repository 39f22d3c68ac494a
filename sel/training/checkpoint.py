"""Checkpoints on disk, each with the configuration that made it: `WORKDIR/checkpoints/STEP`."""

from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from sel.errors import UserError
from sel.training.state import TrainState

_FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run. Saving is atomic and goes on in the background; use as a context manager, which waits for it."""

    def __init__(self, workdir: Path, config: dict[str, Any], keep: int):
        """Open `workdir`, which may be new.

        Raises:
          UserError: if it holds checkpoints of a run with another configuration.
        """
        self._config = config
        self._checkpointer = ocp.training.Checkpointer(
            (workdir / _FOLDER).absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        if self.latest is not None:
            stored = read_config(workdir / _FOLDER / str(self.latest))
            different = sorted(_differences(stored, config))
            if different:
                raise UserError(
                    f"{workdir} holds a run with another configuration: {'; '.join(different[:5])}. "
                    "Continue it with the same configuration or choose another --workdir"
                )

    @property
    def latest(self) -> int | None:
        """Number of the last complete checkpoint."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState) -> None:
        """Begin to write the state as the checkpoint of its step, after the one before is complete."""
        self._checkpointer.save_async(int(state.step), state, force=True, custom_metadata={"config": self._config})

    def restore(self, like: TrainState) -> TrainState:
        """Read the last checkpoint into the shapes and shardings of `like`."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        return self._checkpointer.load(self.latest, abstract)

    def __enter__(self) -> "Checkpoints":
        """Use until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is being written."""
        self._checkpointer.close()


def find_checkpoint(path: str | Path) -> Path:
    """The newest checkpoint of a run's folder, or the checkpoint that `path` is.

    Raises:
      UserError: if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"--checkpoint={path}: there is no such folder")
    for folder in (path / _FOLDER, path):
        steps = sorted((p for p in folder.glob("*") if p.name.isdigit()), key=lambda p: int(p.name), reverse=True)
        for step in steps:
            if ocp.is_orbax_checkpoint(step.absolute()):
                return step
    if not ocp.is_orbax_checkpoint(path.absolute()):
        raise UserError(f"--checkpoint={path}: no checkpoint here; give the --workdir of a training run, or one of its checkpoints")
    return path


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration that a checkpoint was trained with.

    Raises:
      UserError: if the checkpoint holds none.
    """
    try:
        return ocp.metadata(checkpoint.absolute()).custom_metadata["config"]
    except (TypeError, KeyError, ValueError, OSError) as error:
        raise UserError(f"{checkpoint} is not a checkpoint of this project: it holds no configuration") from error


def read_params(checkpoint: Path) -> Any:
    """The averaged parameters of a checkpoint, on the first device; nothing else is read.

    Raises:
      UserError: if they are missing or damaged.
    """
    sharding = SingleDeviceSharding(jax.devices()[0])
    try:
        stored = ocp.metadata(checkpoint.absolute()).metadata
        wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, stored)
        wanted["average"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored["average"]
        )
        return ocp.load(checkpoint.absolute(), wanted)["average"]
    except (TypeError, KeyError, ValueError, OSError) as error:
        raise UserError(f"{checkpoint} can't be read as a checkpoint: {str(error).splitlines()[0]}") from error


def _differences(stored: Any, given: Any, key: str = "config") -> list[str]:
    if not (isinstance(stored, dict) and isinstance(given, dict)):
        return [] if stored == given else [f"{key} was {stored!r} and is {given!r}"]
    return [line for name in {*stored, *given} for line in _differences(stored.get(name), given.get(name), f"{key}.{name}")]
