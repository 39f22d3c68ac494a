"""Sets that `experiments.prepare_data` wrote: array_record files that TFDS reads, and here pairs like any other.

Only their descriptions (JSON) are read here: TFDS itself is imported when the first image is.
"""

import json
from pathlib import Path
from typing import Any

from sel.data.pairs import PairPaths
from sel.errors import UserError
from sel.images.storage import Record

INFO, IDS = "dataset_info.json", "metadata.json"


def find_prepared(root: str | Path, name: str | None) -> Path | None:
    """Find the folder of a prepared set.

    Args:
      root: what was given as `--output`, or the folder of the set or of one of its versions in it.
      name: of the set; None for whatever is there.

    Returns:
      The folder of the newest version; None where there is none.

    Raises:
      UserError: if the root holds another set, or several.
    """
    root = Path(root)
    found = {}
    for folder in (root, *(path.parent for pattern in ("*/", "*/*/") for path in sorted(root.glob(pattern + INFO)))):
        if (folder / INFO).is_file():
            found[_read_json(folder / INFO).get("name")] = folder
    if name in found or not found:
        return found.get(name)
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    sought = f"the prepared set {name}" if name else "one prepared set"
    raise UserError(f"{root}: must hold {sought}, found {', '.join(sorted(map(str, found)))}")


def prepared_pairs(folder: Path, split: str) -> tuple[PairPaths, ...]:
    """List the pairs of one split of a prepared set.

    Args:
      folder: what `find_prepared` found.
      split: its name.

    Returns:
      The pairs, in the order in which they were written, which is the natural order of their names.

    Raises:
      UserError: if there is no such split, or the description of the set is damaged.
    """
    splits = _read_json(folder / IDS)
    if split not in splits:
        raise UserError(f"{folder}: there is no split {split!r}, found {', '.join(splits) or 'none'}")
    return tuple(
        PairPaths(name, *(Record(folder, split, index, name, side) for side in ("low", "high")))
        for index, name in enumerate(splits[split])
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged; prepare the set again")
    return value
