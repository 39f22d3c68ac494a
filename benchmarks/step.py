"""Time of a training step, forward, backward and update, beside the same network in PyTorch, in one run and in turn.

    pip install -e '.[benchmark]'    (PyTorch)
    OMP_WAIT_POLICY=passive python -m benchmarks.step --output=docs/benchmarks

Writes OUTPUT/step.md. Both use all cores and do the same: draw t and noise, predict, compare reverse steps with l1,
clip the gradient, AdamW, average of the parameters. Before anything is timed, loss and gradients of both are compared
at the same weights and draws. PyTorch runs as its users run it and as fast as it goes: channels first, channels last,
and with `--compile` through torch.compile, which needs a C++ compiler and minutes. Its threads wait for each other in
busy loops, which count as processor time and, where other work runs, take many times longer: hence OMP_WAIT_POLICY.
Both get large pages of memory, as `experiments.train` asks for them; with GLIBC_TUNABLES=glibc.malloc.hugetlb=0 before
the command neither does.
"""

if __name__ == "__main__":  # first of all: it may start the program again
    from sel.cli.large_pages import use_large_pages

    use_large_pages()

import argparse
import functools
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
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.nafnet_torch import NAFNet, Step, TorchObjective
from sel.diffusion import make_schedule
from sel.interop import network_to_torch
from sel.models import ConditionalNAFNet
from sel.objective import L1, Objective, draw_step, training_losses
from sel.training.optimizer import AdamW, Average
from sel.training.sharding import make_mesh, shard_batch, state_shardings
from sel.training.state import init_state
from sel.training.step import make_train_step

COLUMNS = ("network, batch", "implementation", "ms, least", "ms, median", "CPU ms, least", "against sel, least (CPU)")
BATCH, CASES = 8, ((16, 64), (16, 128), (32, 64), (32, 128))
BLOCKS: dict[str, Any] = {"encoder_blocks": (1, 1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1, 1)}
AVERAGE = Average(decay=0.999, every=1, warmup="none")
Run = Callable[[], Any]
Row = dict[str, str]


@functools.cache
def objective() -> Objective:
    """l1 on reverse steps. Made late: it starts JAX, and the number of devices must be set before."""
    return Objective(schedule=make_schedule(), loss_fn=L1())


def images(size: int) -> dict[str, np.ndarray]:
    """A batch of uint8 images."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (BATCH, size, size, 3), np.uint8) for name in ("x0", "mu")}


def to_torch(x: Any) -> torch.Tensor:
    """`[b, h, w, c]` -> `[b, c, h, w]`."""
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))


def make_params(module: ConditionalNAFNet) -> Any:
    """Random parameters, none of them zero."""
    image = jnp.zeros((1, 16, 16, 3))
    params = jax.jit(module.init)(jax.random.key(0), image, image, jnp.ones(1, jnp.int32))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)


def torch_step(module: ConditionalNAFNet, params: Any, **options: bool) -> Step:
    """PyTorch's step, from sel's weights."""
    network = NAFNet(module.width, **BLOCKS)
    weights = network_to_torch(module, params)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return Step(TorchObjective(network, objective().schedule), objective().schedule.num_steps, **options)


def compare(module: ConditionalNAFNet, params: Any, size: int, step: Step) -> float:
    """Largest difference of a gradient, in units of the largest entry of its tensor.

    Raises:
        AssertionError: losses or gradients are not those of the same function.
    """
    x0, mu = (jnp.asarray(x, jnp.float32) / 255 for x in images(size).values())
    draws = draw_step(jax.random.key(2), objective(), x0.shape)

    def mean_loss(params: Any) -> jax.Array:
        def noise_fn(x_t, mu, t):
            return module.apply({"params": params}, x_t, mu, t)

        return training_losses(objective(), noise_fn, x0, mu, draws).mean()

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(params)
    other = step.gradients(to_torch(x0), to_torch(mu), torch.tensor(np.asarray(draws.t)), to_torch(draws.noise))
    np.testing.assert_allclose(loss, other, rtol=1e-5)
    ours, worst = network_to_torch(module, gradients), 0.0
    for name, parameter in step.objective.network.named_parameters():
        assert parameter.grad is not None
        difference = np.abs(ours[name] - parameter.grad.numpy()).max() / np.abs(ours[name]).max()
        worst = max(worst, float(difference))
    assert worst < 1e-3, f"gradients differ by {worst:.1e} of their largest entries"
    return worst


def sel_step(module: ConditionalNAFNet, size: int) -> Run:
    """The step of `experiments.train`, over all CPU devices."""
    mesh, optimizer = make_mesh(), AdamW().transformation(lambda _: 5e-4)

    def first_state(key: jax.Array) -> Any:
        return init_state(key, module, optimizer)

    shardings = state_shardings(jax.eval_shape(first_state, jax.random.key(0)), mesh)
    state = jax.jit(first_state, out_shardings=shardings)(jax.random.key(0))
    step = make_train_step(module, objective(), optimizer, AVERAGE.update, mesh, shardings)
    batch, key = images(size), jax.random.key(1)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, shard_batch(batch, mesh), key)
        jax.block_until_ready(metrics)

    return run


def torch_runs(module: ConditionalNAFNet, size: int, compiled: bool) -> dict[str, Run]:
    """PyTorch's variants, each of which has been found to compute what sel does."""
    params = make_params(module)
    runs: dict[str, Run] = {}
    x0, mu = (to_torch(x) for x in images(size).values())
    for last, through_compiler in ((False, False), (True, False), *([(True, True)] if compiled else [])):
        step = torch_step(module, params, channels_last=last, compiled=through_compiler)
        name = f"PyTorch, channels {'last' if last else 'first'}{', torch.compile' if through_compiler else ''}"
        print(f"{name}: gradients agree to {compare(module, params, size, step):.0e}", flush=True)
        runs[name] = functools.partial(step, x0, mu)
    return runs


def time_in_turn(runs: dict[str, Run], repeats: int) -> dict[str, tuple[float, float, float]]:
    """Milliseconds of each, (least, median, least of CPU), after two turns that are not counted.

    Each takes a step that is not counted before each that is, as a step of training follows another: while others had
    their turn, its memory has gone back to the kernel, or to the host of a virtual machine.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            run()
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if turn >= 2:
                times[name].append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)))
    columns = {name: list(zip(*values, strict=True)) for name, values in times.items()}
    return {name: (min(wall), statistics.median(wall), min(cpu)) for name, (wall, cpu) in columns.items()}


def measure(width: int, size: int, repeats: int, compiled: bool) -> list[Row]:
    """The rows of one network and batch."""
    module = ConditionalNAFNet(width=width, **BLOCKS)
    runs = {"sel": sel_step(module, size), **torch_runs(module, size, compiled)}
    times = time_in_turn(runs, repeats)
    rows = []
    for name, (least, median, cpu) in times.items():
        ratio = f"{least / times['sel'][0]:.2f} ({cpu / times['sel'][2]:.2f})"
        label = f"width {width}, {BATCH} x {size} x {size}"
        rows.append(
            dict(zip(COLUMNS, (label, name, f"{least:.0f}", f"{median:.0f}", f"{cpu:.0f}", ratio), strict=True))
        )
    return rows


def markdown(rows: list[Row], what: str) -> str:
    """The page as it is in docs/."""
    lines = [
        "# One training step beside PyTorch",
        "",
        "Forward, backward and update of the conditional NAFNet, blocks (1, 1, 1), 1, (1, 1, 1), float32; the same",
        "weights, and gradients compared before. Least and median time of a step, the implementations taking turns in",
        "one process, and the least processor time (all threads), which other work on the machine lengthens least.",
        "Both with large pages of memory, as `experiments.train` asks for them, unless GLIBC_TUNABLES says otherwise.",
        "Last column: times sel's. `OMP_WAIT_POLICY=passive python -m benchmarks.step`.",
        "",
        what,
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row.values()) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _case(text: str) -> tuple[int, int]:
    width, size = map(int, text.split(","))
    return width, size


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for step.md")
    parser.add_argument("--cases", nargs="+", default=CASES, help="WIDTH,SIZE ...", type=_case)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile, too")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)
    torch.set_num_threads(cores)
    rows, loads = [], []
    for width, size in arguments.cases:
        rows += measure(width, size, arguments.repeats, arguments.compile)
        loads.append(os.getloadavg()[0])
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)
    machine = f"{platform.processor() or platform.machine()}, {cores} cores, load {min(loads):.0f} to {max(loads):.0f}"
    pages = os.environ.get("GLIBC_TUNABLES")
    what = f"{machine}; jax {jax.__version__}, PyTorch {torch.__version__}{f'; GLIBC_TUNABLES={pages}' * bool(pages)}."
    if arguments.output:
        (arguments.output / "step.md").write_text(markdown(rows, what))


if __name__ == "__main__":
    main()
