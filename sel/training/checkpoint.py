"""Checkpoints on disk, each with the configuration that made it: `WORKDIR/checkpoints/STEP`. Reading, and new ones."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from sel.choices import to_dict
from sel.digests import check_digests, write_digests
from sel.errors import DamagedError, UserError
from sel.training.config import ModelConfig, from_stored

FOLDER = "checkpoints"

# Orbax's, in each checkpoint: what was given as `custom_metadata`, among others.
_METADATA = "_CHECKPOINT_METADATA"

_FOREIGN = (
    "{}: no checkpoint of this project, or a damaged one; give the folder of a training run, or one of its checkpoints"
)

# How TensorStore and XLA speak of what is no damage. A file that is missing (error 2) is.
_TROUBLE = re.compile(
    r"OS error (?!2:)\d+|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED|UNAUTHENTICATED|"
    "Unable to initialize backend"
)


def latest_step(workdir: Path) -> int:
    """Step from which training in `workdir` would go on: that of the last checkpoint, or 0."""
    return max(steps_in(workdir / FOLDER), default=0)


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
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
      DamagedError: if `checkpoint` is not a checkpoint, was not written by `sel`, or is damaged.
      UserError: if it can't be read.
    """
    stored = read_metadata(checkpoint)["config"]
    try:
        return from_stored(stored)
    except (UserError, LookupError, TypeError, ValueError, AttributeError) as error:
        if check(checkpoint, [_METADATA]):
            raise UserError(f"{checkpoint}: its configuration is none of this version: {error}") from error
        raise DamagedError(_FOREIGN.format(checkpoint)) from error


def read_metadata(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: `config` and, if it was ranked, `scores`.

    Raises:
      DamagedError, UserError: as `read_config`.
    """
    try:
        stored = json.loads((checkpoint / _METADATA).read_bytes())["custom_metadata"]
        stored["config"].items()
    except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(_FOREIGN.format(checkpoint)) from error
    except OSError as error:
        raise unreadable(checkpoint, error) from error
    check(checkpoint, [_METADATA])
    return stored


def read_params(checkpoint: Path, *, sharding: Sharding | None = None) -> Any:
    """The averaged parameters of a checkpoint, by default on the first device.

    All files are read, and compared with the digests that were written with them.

    Raises:
      DamagedError: if they are missing or damaged.
      UserError: if they can't be read.
    """
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    with reading(checkpoint, check(checkpoint)):
        stored = ocp.metadata(checkpoint.absolute()).metadata
        wanted = jax.tree.map(lambda _: ocp.PLACEHOLDER, stored)
        wanted["average"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored["average"]
        )
        return ocp.load(checkpoint.absolute(), wanted)["average"]


def check(checkpoint: Path, names: Iterable[str] | None = None) -> bool:
    """Read all files of a checkpoint, or some, and compare them with their digests; whether there are any.

    Raises:
      DamagedError: if one is not as it was written.
      UserError: if one can't be read.
    """
    try:
        return check_digests(checkpoint, names)
    except DamagedError as error:
        raise DamagedError(f"{damaged(checkpoint)} ({error})") from None
    except OSError as error:
        raise unreadable(checkpoint, error) from error


@contextlib.contextmanager
def reading(checkpoint: Path, whole: bool) -> Iterator[None]:
    """Tell damage from trouble in the words of the libraries that read a checkpoint.

    Args:
      checkpoint: what is read.
      whole: whether its digests are right. Those of earlier versions have none: there, what is neither a failing disk
        nor a failing device is damage.

    Raises:
      DamagedError: for damage.
      UserError: for trouble.
    """
    try:
        yield
    except Exception as error:  # a ValueError, a KeyError, whatever a reader stumbles upon in a damaged file
        if whole or isinstance(error, OSError | MemoryError) or _TROUBLE.search(str(error)):
            raise unreadable(checkpoint, error) from error
        raise DamagedError(damaged(checkpoint)) from error


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
        write_digests(new)
        if target.exists():
            target.rename(old)
        new.rename(target)
    except Exception as error:  # as in Checkpoints
        raise UserError(f"{folder}: the checkpoint can't be written. {_first_line(str(error))}") from error
    finally:
        if old.exists() and not target.exists():  # interrupted between the two
            old.rename(target)
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)
    return target


def steps_in(folder: Path) -> list[int]:
    """Numbers of the checkpoints in a folder. One that is still being written has another name.

    Raises:
      OSError: if the folder can't be read: it may hold some.
    """
    try:
        return [int(name) for name in os.listdir(folder) if name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def damaged(checkpoint: Path) -> str:
    """What to say of a checkpoint that was read and is wrong."""
    return f"{checkpoint}: the checkpoint is damaged; if there is an older one, delete this folder to use that"


def unreadable(checkpoint: Path, error: Exception) -> UserError:
    """What to say of a checkpoint that may be whole."""
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return UserError(f"{checkpoint}: can't be read, and is left as it is: {_first_line(reason)}")


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
