"""Checkpoints on disk, each with the configuration that made it: `WORKDIR/checkpoints/STEP`. Reading, and new ones."""

import os
import shutil
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from sel.choices import to_dict
from sel.errors import UserError
from sel.training.config import ModelConfig, from_stored

FOLDER = "checkpoints"


def latest_step(workdir: Path) -> int:
    """Step from which training in `workdir` would go on: that of the last checkpoint, or 0."""
    return max(steps_in(workdir / FOLDER), default=0)


def find_checkpoint(path: str | Path) -> Path:
    """The newest checkpoint of a run's folder, or else `path` itself.

    Raises:
      UserError: if there is no such folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: {'a file' if path.exists() else 'no such folder'}; a checkpoint is a folder")
    for folder in (path / FOLDER, path):
        steps = steps_in(folder)
        if steps:
            return folder / str(max(steps))
    return path


def read_config(checkpoint: Path) -> ModelConfig:
    """The configuration that a checkpoint was trained with: a `Config`, but for parameters from elsewhere.

    Raises:
      UserError: if `checkpoint` is none, or none of this project.
    """
    try:
        return from_stored(ocp.metadata(checkpoint.absolute()).custom_metadata["config"])
    except Exception as error:  # whatever a reader stumbles upon in other people's folders
        raise UserError(
            f"{checkpoint}: no checkpoint of this project, or a damaged one; give the folder of a training run, or one "
            "of its checkpoints"
        ) from error


def read_params(checkpoint: Path, *, sharding: Sharding | None = None) -> Any:
    """The averaged parameters of a checkpoint, by default on the first device; nothing else is read.

    Raises:
      UserError: if they are missing or damaged.
    """
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    try:
        stored = ocp.metadata(checkpoint.absolute()).metadata
        wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, stored)
        wanted["average"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored["average"]
        )
        return ocp.load(checkpoint.absolute(), wanted)["average"]
    except Exception as error:  # as above
        raise damaged_error(checkpoint) from error


def check_new_params(workdir: Path, *, overwrite: bool) -> None:
    """See that `save_params` may write there, before the work.

    Raises:
      UserError: if there is a checkpoint already (with `overwrite`, that of a training run), or a file in the place of
        a folder.
    """
    for folder in (workdir, *workdir.parents):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; a checkpoint is a folder")
    steps = steps_in(workdir / FOLDER)
    if any(steps):
        raise UserError(f"{workdir} holds a training run, which is not overwritten; choose another folder")
    if steps and not overwrite:
        raise UserError(f"{workdir} holds a checkpoint already; choose another folder or give --overwrite")


def save_params(workdir: Path, params: Any, config: ModelConfig, *, overwrite: bool = False) -> Path:
    """Write parameters that come from elsewhere as the checkpoint `WORKDIR/checkpoints/0`, whole or not at all.

    Args:
      workdir: a folder without a training run, new or not.
      params: become the averaged parameters; there is nothing else to go on training with.
      config: what `enhance` needs.
      overwrite: replace such a checkpoint.

    Returns:
      The checkpoint.

    Raises:
      UserError: as `check_new_params`, or if it can't be written.
    """
    check_new_params(workdir, overwrite=overwrite)
    folder = workdir / FOLDER
    target = folder / "0"
    new, old = (folder / f".{name}.{os.getpid()}.tmp" for name in ("new", "old"))
    try:
        ocp.save(new.absolute(), {"average": params}, custom_metadata={"config": to_dict(config, stored=True)})
        if target.exists():
            target.rename(old)
        new.rename(target)
    except Exception as error:  # as in Checkpoints
        raise UserError(f"{folder}: the checkpoint can't be written. {str(error).splitlines()[0]}") from error
    finally:
        if old.exists() and not target.exists():  # interrupted between the two
            old.rename(target)
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)
    return target


def steps_in(folder: Path) -> list[int]:
    """Numbers of the checkpoints in a folder. One that is still being written has another name."""
    return [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]


def damaged_error(checkpoint: Path) -> UserError:
    """What to say of a checkpoint that can't be read."""
    return UserError(
        f"{checkpoint}: the checkpoint is damaged; if there is an older one, delete this folder to use that"
    )
