"""Bytes that cross between devices in one training step, counted in the compiled program; no accelerator needed.

    python -m benchmarks.traffic

Compiles the step of `experiments.train` for 2, 4 and 8 CPU devices, with the state whole on each of them and split over
all of them, and adds up what the collectives of the optimized program take and give. docs/benchmarks/scaling.md uses
the figures.
"""

import argparse
import collections
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from rich.console import Console
from rich.table import Table

from sel.diffusion import make_schedule
from sel.models import ConditionalNAFNet
from sel.objective import L1, Objective
from sel.training.optimizer import AdamW, Average
from sel.training.sharding import AXES, split_batch, state_shardings
from sel.training.state import init_state
from sel.training.step import make_train_step

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "u16": 2, "s8": 1, "u8": 1}
SMALL: dict[str, Any] = {"width": 32, "encoder_blocks": (1, 1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1, 1)}
COLUMNS = ("devices", "state", "parameters", "collective", "number", "MB of whole arrays", "sent by a device, MB")


def compiled_step(module: ConditionalNAFNet, devices: int, parts: int, batch: int, size: int) -> tuple[str, int]:
    """The optimized program of a step for some of the devices, and the number of parameters; nothing is run."""
    grid = np.array(jax.devices()[:devices]).reshape(devices // parts, parts)
    mesh = Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)
    optimizer = AdamW().transformation(lambda _: 5e-4)

    def first_state(key: jax.Array) -> Any:
        return init_state(key, module, optimizer)

    state = jax.eval_shape(first_state, jax.random.key(0))
    shardings = state_shardings(state, mesh)
    objective = Objective(schedule=make_schedule(), loss_fn=L1())
    jitted: Any = make_train_step(module, objective, optimizer, Average().update, mesh, shardings)
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
    image = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=split_batch(mesh))
    # What each processor does is of no interest.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    lowered = jitted.lower(state, {"x0": image, "mu": image}, jax.random.key(0))
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    return lowered.compile(compiler_options=options).as_text(), parameters


def whole_bytes(program: str, devices: int) -> dict[str, tuple[int, int]]:
    """For each kind of collective how many there are, and the bytes of their whole (not split) arrays."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    for line in program.splitlines():
        match = re.search(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", line)
        # Along an axis of one device nothing crosses; the CPU's program keeps such collectives.
        if match and not re.search(r"replica_groups=\{\{\d+\}", line):
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match.group(1))
            size = sum(BYTES[kind] * math.prod(map(int, filter(None, axes.split(",")))) for kind, axes in shapes)
            found[match.group(2)].append(size * devices if match.group(2) == "reduce-scatter" else size)
    return {kind: (len(sizes), sum(sizes)) for kind, sizes in found.items()}


def sent(kind: str, size: int, devices: int) -> float:
    """Bytes that each device of a ring sends for arrays of `size` bytes."""
    return (2 if kind == "all-reduce" else 1) * size * (devices - 1) / devices


def rows(module: ConditionalNAFNet, counts: Sequence[int], size: int) -> list[tuple[str, ...]]:
    """The table: each number of devices, state whole and split."""
    table = []
    for devices in counts:
        for parts in (1, devices):
            program, parameters = compiled_step(module, devices, parts, max(counts), size)
            where = "whole" if parts == 1 else f"in {parts} parts"
            for kind, (number, total) in sorted(whole_bytes(program, devices).items()):
                out = sent(kind, total, devices)
                cells = (devices, where, f"{parameters:,}", kind, number, f"{total / 1e6:.3f}", f"{out / 1e6:.3f}")
                table.append(tuple(map(str, cells)))
    return table


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--published", action="store_true", help="the published network, 288 M parameters, minutes")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", max(arguments.devices))
    module = ConditionalNAFNet() if arguments.published else ConditionalNAFNet(**SMALL)
    table = Table(*COLUMNS)
    for row in rows(module, arguments.devices, 32):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
