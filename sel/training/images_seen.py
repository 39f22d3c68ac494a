"""Which images a model was trained on: a record beside the checkpoints of a run, and a look into it."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from sel.data import Pair, content_hash, find_same
from sel.errors import DamagedError, UserError
from sel.files import write_json
from sel.training.checkpoint import find_checkpoint, latest_step

# Beside the checkpoints of a run.
RECORD = "training_images.json"


def write_record(workdir: Path, pairs: Sequence[Pair], init_from: str) -> None:
    """Write which images a run is trained on, those of the run that it began with included."""
    if jax.process_index() > 0:
        return
    if latest_step(workdir):  # it goes on, perhaps without the run that it began with
        before = read_record(str(workdir))
    else:
        origin = read_record(init_from) if init_from else {}
        before = {f"{name} (of {init_from})": text for name, text in origin.items()}
    write_json(workdir / RECORD, before | {pair.name: content_hash(pair.x0) for pair in pairs})


def read_record(checkpoint: str) -> dict[str, str]:
    """`content_hash` of the images that a checkpoint was trained on, by name; empty where there is no record.

    Raises:
      DamagedError: if the record is damaged.
      OSError: if it can't be read.
    """
    try:
        path = find_checkpoint(checkpoint).absolute().parent.parent / RECORD
        return {str(name): str(text) for name, text in json.loads(path.read_bytes()).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, AttributeError) as error:
        raise DamagedError(f"{path}: damaged; move it away to go on without what it tells") from error
    except UserError:  # there is no such checkpoint
        return {}


def images_seen(checkpoint: str, pairs: Sequence[Pair]) -> dict[str, str] | None:
    """The pairs whose reference a checkpoint was trained on, with the names that these had; None if unknown."""
    try:
        known = read_record(checkpoint)
    except DamagedError:
        return None
    return find_same({pair.name: content_hash(pair.x0) for pair in pairs}, known) if known else None
