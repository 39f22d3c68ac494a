"""Training crops per second from the cache of decoded images, beside decoding files each time, in one run and in turn.

    python -m benchmarks.data --output=docs/benchmarks

Writes OUTPUT/data.md. Without `--root` the images are made up: PNG pairs of the size of LOL v1's, 600 x 400, from the
photographs that come with scikit-image. With `--root=FOLDER` they are the pairs in FOLDER/low and FOLDER/high.
"""

import argparse
import contextlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sel.data import Pair, PairPaths, batches, cached_pairs, find_pairs, sample_pairs, training_dataset
from sel.images import read_image, write_png

COLUMNS = ("source", "threads", "0.8 resize", "crops of 128 x 128 per second", "times decoding")
CROP, BATCH = 128, 8
Row = dict[str, Any]


def make_pairs(folder: Path, count: int) -> None:
    """Write `count` pairs of 600 x 400."""
    _, photographs = sample_pairs(darkenings=1)
    rng = np.random.default_rng(0)
    for side in ("low", "high"):
        (folder / side).mkdir(parents=True)
    for i in range(count):
        pair = photographs[i % len(photographs)]
        for side, image in (("low", pair.mu), ("high", pair.x0)):
            rows, columns = (np.arange(n) % image.shape[axis] for axis, n in enumerate((400, 600)))
            write_png(folder / side / f"{i}.png", np.roll(image[rows][:, columns], int(rng.integers(600)), axis=1))


class Decoding(Sequence[Pair]):
    """Pairs that are decoded whenever they are asked for."""

    def __init__(self, paths: Sequence[PairPaths], shapes: Sequence[Pair]):
        self._paths, self._shapes = paths, shapes
        self.asked = False

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        """One pair; its size alone until training begins."""
        if not self.asked:
            return self._shapes[index]
        path = self._paths[index]
        return Pair(path.name, read_image(path.low), read_image(path.high))


def rate(pairs: Sequence[Pair], threads: int, resize_chance: float, seconds: float) -> float:
    """Pairs of crops per second, after one batch that is not counted."""
    dataset = training_dataset(pairs, batch_size=BATCH, crop_size=CROP, seed=0, resize_chance=resize_chance)
    if isinstance(pairs, Decoding):
        pairs.asked = True
    with contextlib.closing(batches(dataset, threads=threads)) as source:
        next(source)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(source)
            count += BATCH
        return count / (time.perf_counter() - start)


def measure(
    paths: Sequence[PairPaths], cache: Path, seconds: float, repeats: int
) -> tuple[list[Row], dict[str, float]]:
    """All rows of the table, the cases taking turns; and what the cache costs."""
    load, start = os.getloadavg()[0], time.perf_counter()
    cached = cached_pairs(paths, cache)
    built = time.perf_counter()
    cached = cached_pairs(paths, cache)
    cost = {"load": load, "build s": built - start, "open s": time.perf_counter() - built}
    cost["MiB"] = sum(path.stat().st_size for path in cache.iterdir()) / 2**20
    sources: dict[str, Callable[[], Sequence[Pair]]] = {
        "decoding each time": lambda: Decoding(paths, cached),
        "cache": lambda: cached,
    }
    cases = [(name, threads, chance) for chance in (0.0, 0.2) for threads in (1, 2) for name in sources]
    rates: dict[Any, list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for name, threads, chance in cases:
            rates[name, threads, chance].append(rate(sources[name](), threads, chance, seconds))
    medians = {case: statistics.median(values) for case, values in rates.items()}
    rows = []
    for (name, threads, chance), value in medians.items():
        times = value / medians["decoding each time", threads, chance]
        rows.append(dict(zip(COLUMNS, (name, threads, f"{chance:.0%}", value, times), strict=True)))
    return rows, cost


def cells(row: Row) -> list[str]:
    """A row as text."""
    *first, value, times = row.values()
    return [*map(str, first), f"{value:,.0f}", f"{times:.1f}"]


def markdown(rows: list[Row], cost: dict[str, float], what: str) -> str:
    """The page as it is in docs/."""
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {cost['load']:.1f} before"
    lines = [
        "# Training crops per second",
        "",
        f"{what}. A crop is a pair: low-light image and reference, cut, turned and mirrored",
        f"alike, in batches of {BATCH}. Medians; {machine},",
        f"Pillow {version('pillow')}, Grain {version('grain')}.",
        "`python -m benchmarks.data`.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
        "",
        f"The cache takes {cost['MiB']:,.0f} MiB, {cost['build s']:.1f} s to build and {cost['open s']:.2f} s to open.",
        "Files are in the memory of the operating system in both cases.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with low/ and high/")
    parser.add_argument("--pairs", type=int, default=48, help="number of pairs that are made up")
    parser.add_argument("--seconds", type=float, default=3, help="duration of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="folder for data.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.root or Path(folder) / "pairs"
        if args.root is None:
            make_pairs(root, args.pairs)
        paths = find_pairs(root)
        rows, cost = measure(paths, Path(folder) / "cache", args.seconds, args.repeats)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    Console().print(table)
    if args.output:
        made = "made-up pairs of 600 x 400 in PNG files" if args.root is None else f"pairs of {args.root.name}"
        (args.output / "data.md").write_text(markdown(rows, cost, f"{len(paths)} {made}"))


if __name__ == "__main__":
    main()
