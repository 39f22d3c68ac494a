"""Time and memory of the loss with its gradient, beside the dense formulation in PyTorch, in one run and in turn.

    pip install -e '.[benchmark]'    (PyTorch and matplotlib)
    python -m benchmarks.loss --output=docs/benchmarks

Writes OUTPUT/loss.md and OUTPUT/loss.png. Without PyTorch its rows are left out. Images are crops of the photographs
that come with scikit-image; the prediction is the target, blurred a little, with noise of standard deviation 0.02.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

import sel
from sel.data import sample_pairs

COLUMNS = ("case", "implementation", "ms", "against dense PyTorch", "temporary MiB", "compile s")
Row = dict[str, Any]


def natural_pair(batch: int, size: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Predictions and targets `[batch, size, size, 3]` from photographs."""
    training, validation = sample_pairs(darkenings=1)
    photographs = [pair.x0 for pair in (*training, *validation) if pair.name != "rocket-0"]
    generator = np.random.default_rng(seed)
    crops = []
    for i in range(batch):
        photograph = photographs[i % len(photographs)]
        repeat = [(0, max(0, size - n)) for n in photograph.shape[:2]]
        photograph = np.pad(photograph, [*repeat, (0, 0)], mode="reflect")
        y, x = (generator.integers(n - size + 1) for n in photograph.shape[:2])
        crops.append(photograph[y : y + size, x : x + size])
    targets = np.float32(np.stack(crops)) / 255
    shifted = [np.roll(targets, shift, axis) for shift in (-1, 1) for axis in (1, 2)]
    blurred = (targets + sum(shifted)) / 5
    noisy = np.clip(blurred + 0.02 * generator.standard_normal(targets.shape, np.float32), 0, 1)
    return jnp.asarray(noisy), jnp.asarray(targets)


def sel_case(implementation: str, batch: int, size: int, **options: Any) -> tuple[Callable[[], Any], Row]:
    """A compiled value and gradient, and what is known of it before it runs."""
    predictions, targets = natural_pair(batch, size)

    def loss(predictions, targets):
        return sel.spatial_entropy_loss(predictions, targets, implementation=implementation, **options).mean()

    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(loss)).lower(predictions, targets).compile()
    row: Row = {"compile s": time.perf_counter() - start}
    memory = compiled.memory_analysis()
    row["temporary MiB"] = memory.temp_size_in_bytes / 2**20 if memory else None
    return lambda: jax.block_until_ready(compiled(predictions, targets)), row


def torch_case(size: int, **options: Any) -> Callable[[], Any]:
    """The same in PyTorch, eager, as its users run it."""
    import torch

    from benchmarks.dense_torch import hellinger_loss

    prediction, target = (torch.tensor(np.asarray(x[0]).transpose(2, 0, 1)) for x in natural_pair(1, size))

    def run():
        leaf = prediction.clone().requires_grad_()
        value = hellinger_loss(leaf, target, **options)
        value.backward()
        return value.item(), leaf.grad

    return run


def time_in_turn(cases: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, after one run that is not counted, the cases taking turns."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def compare(size: int, num_bins: int, repeats: int) -> list[Row]:
    """`sel` and PyTorch on one pair."""
    label = f"1 x {size} x {size} x 3, {num_bins} bins"
    cases, known = {}, {}
    for name in ("sparse", "dense"):
        cases[name], known[name] = sel_case(name, 1, size, num_bins=num_bins)
    if importlib.util.find_spec("torch"):
        cases["PyTorch, dense"], known["PyTorch, dense"] = torch_case(size, num_bins=num_bins), {}
    times = time_in_turn(cases, repeats)
    rows = [{"case": label, "implementation": name, "ms": ms, **known[name]} for name, ms in times.items()]
    if "PyTorch, dense" in times:
        for row in rows:
            row["against dense PyTorch"] = times["PyTorch, dense"] / row["ms"]
    return rows


def alone(label: str, batch: int, size: int, repeats: int, **options: Any) -> Row:
    """The default implementation on one case."""
    implementation = "sparse" if jax.default_backend() == "cpu" else "dense"
    run, row = sel_case(implementation, batch, size, **options)
    return {"case": label, "implementation": implementation, "ms": time_in_turn({label: run}, repeats)[label], **row}


def image_per_core(cores: int, repeats: int) -> Row:
    """One image on each CPU device, which run side by side: how training on a CPU uses its cores."""
    predictions, targets = natural_pair(cores, 128)
    mesh = jax.make_mesh((cores,), ("b",))
    split = PartitionSpec("b")

    def loss(predictions, targets):
        entropy = jax.shard_map(sel.spatial_entropy_loss, mesh=mesh, in_specs=split, out_specs=split)
        return entropy(predictions, targets).mean()

    images = jax.device_put((predictions, targets), NamedSharding(mesh, split))
    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*images).compile()
    row: Row = {
        "compile s": time.perf_counter() - start,
        "case": f"{cores} x 128 x 128 x 3, 32 bins, on {cores} devices",
    }
    times = time_in_turn({"": lambda: jax.block_until_ready(compiled(*images))}, repeats)
    return {"implementation": "sparse", "ms": times[""], **row}


def cases(repeats: int) -> list[Row]:
    """All rows of the table."""
    rows = compare(128, 32, repeats)
    for num_bins in (16, 32, 64, 128):
        rows.append(alone(f"1 x 128 x 128 x 3, {num_bins} bins", 1, 128, repeats, num_bins=num_bins))
    for size in (64, 256, 512, 1024):
        rows.append(alone(f"1 x {size} x {size} x 3, 32 bins", 1, size, max(1, repeats // 2)))
    rows.append(alone("8 x 128 x 128 x 3, 32 bins", 8, 128, max(1, repeats // 2)))
    if jax.default_backend() == "cpu":
        rows.append(image_per_core(jax.device_count(), repeats))
    for windows in ((1,), (3,), (5,), (1, 3, 5, 7)):
        rows.append(alone(f"1 x 128 x 128 x 3, 32 bins, windows {windows}", 1, 128, repeats, windows=windows))
    for divergence in ("relative", "cross", "jensen_shannon", "entropy_difference"):
        rows.append(alone(f"1 x 128 x 128 x 3, 32 bins, {divergence}", 1, 128, repeats, divergence=divergence))
    return rows


def markdown(rows: list[Row]) -> str:
    """The table as it is in docs/."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join(lines + ["| " + " | ".join(_cell(row, name) for name in COLUMNS) + " |" for row in rows]) + "\n"


def _cell(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return {"ms": f"{value:.0f}", "against dense PyTorch": f"{value:.1f} times"}.get(name, f"{value:.1f}")


def plot(rows: list[Row], path: Path) -> None:
    """Time against bins and against pixels."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    plain = [row for row in rows if row["implementation"] in ("sparse", "dense") and row["case"].endswith(" bins")]
    by_bins = {int(r["case"].split()[-2]): r["ms"] for r in plain if r["case"].startswith("1 x 128 ")}
    by_size = {
        int(r["case"].split()[2]): r["ms"] for r in plain if r["case"].startswith("1 x ") and " 32 bins" in r["case"]
    }
    for axis, points, power, label, law in (
        (axes[0], by_bins, 2, "bins", "square of the bins"),
        (axes[1], {k * k: v for k, v in by_size.items()}, 1, "pixels", "pixels"),
    ):
        xs = sorted(points)
        first = points[xs[0]]
        axis.loglog(xs, [points[x] for x in xs], "o-")
        axis.loglog(xs, [first * (x / xs[0]) ** power for x in xs], "--", color="grey", label=f"as the {law}")
        axis.set_xticks(xs, [f"{x:,}" for x in xs], minor=False)
        axis.set_xticks([], minor=True)
        axis.set(xlabel=label, ylabel="ms, value and gradient")
        axis.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    rows = cases(arguments.repeats)
    machine = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}, jax {jax.__version__}"
    table = Table(*COLUMNS, title=f"Hellinger loss with gradient, windows (1, 3, 5), float32; {machine}")
    for row in rows:
        table.add_row(*(_cell(row, name) for name in COLUMNS))
    Console().print(table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "loss.md").write_text(
        f"Value and gradient, Hellinger, windows (1, 3, 5), float32. {machine}.\n\n{markdown(rows)}"
    )
    if importlib.util.find_spec("matplotlib"):
        plot(rows, arguments.output / "loss.png")


if __name__ == "__main__":
    main()
