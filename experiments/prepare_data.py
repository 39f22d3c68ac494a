"""Check a download pair by pair and write it as a TFDS set (array_record), which trains and evaluates like the folders.

    python -m experiments.prepare_data --dataset=lol_v1 --source=LOLdataset.zip --output=data
    python -m experiments.train --config=configs/lol_v1.py --config.data.root=data --workdir=runs/lol

SOURCE is the zip archive as it was downloaded, or a folder that holds what it unpacks to (or the archives themselves,
where a set has several). Bad images are left out, counted and listed; with --strict the first ends the program. The
sets and their layouts: README.md.
"""

import contextlib
import io
import os
import shutil
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from sel.cli.arguments import define_path
from sel.cli.console import console, print_problems, require, run
from sel.cli.progress import Progress
from sel.data import DATASETS, find_prepared
from sel.errors import UserError
from sel.files import make_folder
from sel.images import OnProblem

_DATASET = flags.DEFINE_enum("dataset", None, list(DATASETS), "Which set it is.")
_SOURCE = define_path("source", "", "The download: a zip archive or a folder.")
_OUTPUT = define_path("output", "data", "Folder for prepared sets.")
_STRICT = flags.DEFINE_bool("strict", False, "Stop at the first bad image.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the set if OUTPUT holds it.")

_SHOWN = 3


def main() -> None:
    """Prepare beside the output, move into place, print what was found."""
    output, name, start = Path(_OUTPUT.value), str(_DATASET.value), time.monotonic()
    if not Path(_SOURCE.value).exists():
        raise UserError(f"--source={_SOURCE.value}: no such file or folder")
    target = output / name
    if target.exists() and not _OVERWRITE.value:
        raise UserError(f"--output: {target} exists already; choose another folder or give --overwrite")
    make_folder(output)
    problems: list[UserError] = []
    report = None if _STRICT.value else problems.append
    beside = output / f".{uuid.uuid4().hex}.preparing"
    try:
        sizes = prepare(name, Path(_SOURCE.value), beside, report)
        replace(beside / name, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    console.print(found_table(name, sizes))
    print_problems(problems)
    bytes_written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    console.print(
        f"{bytes_written / 2**20:.0f} MiB in {find_prepared(output, name)} ({time.monotonic() - start:.0f} s)"
    )
    console.print(f"Use it with --config.data.name={name} --config.data.root={output}")


def prepare(
    name: str, source: Path, folder: Path, report: OnProblem | None
) -> dict[str, Counter[tuple[int, int] | None]]:
    """Let TFDS write the set below `folder`; count the pairs of each split by (height, width), bad ones as None."""
    import tensorflow_datasets as tfds

    from sel.data import builders

    sizes: dict[str, Counter[tuple[int, int] | None]] = defaultdict(Counter)
    # TFDS talks of downloads on stdout, and shows bars of its own.
    said = Console(file=sys.stdout)
    tfds.disable_progress_bar()
    with Progress("preparing", output=said) as progress:

        def observe(split: str, total: int, size: tuple[int, int] | None) -> None:
            sizes[split][size] += 1
            progress(sizes[split].total(), total, note=split)

        builder = builders.BUILDERS[name](source=source, report=report, observer=observe, data_dir=str(folder))
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=str(folder / "downloads"))
    return sizes


def replace(new: Path, target: Path) -> None:
    """Move a folder to its place; what stood there goes only when the new one is there."""
    old = target.with_name(f".{uuid.uuid4().hex}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def found_table(name: str, sizes: Mapping[str, Counter[tuple[int, int] | None]]) -> Table:
    """Pairs of each split, those left out, and the commonest sizes."""
    table = Table(title=DATASETS[name].title)
    for column in ("split", "pairs", "damaged pairs", "height x width"):
        table.add_column(column, justify="right" if "pairs" in column else "left")
    for split in DATASETS[name].splits:
        count = Counter(sizes.get(split, {}))
        bad, good = count.pop(None, 0), count.total()
        common = [f"{height} x {width}: {pairs}" for (height, width), pairs in count.most_common(_SHOWN)]
        more = [f"{len(count) - _SHOWN} other sizes"] if len(count) > _SHOWN else []
        table.add_row(split, str(good) if split in sizes else "none", str(bad), ", ".join([*common, *more]))
    return table


if __name__ == "__main__":
    require("dataset", "source", "output")
    run(main)
