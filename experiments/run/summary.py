"""What a run will ask of its devices, worked out from shapes alone: parameters, operations and memory."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr
from rich.table import Table

from sel.choices import name_of
from sel.cli.console import console
from sel.models import MODELS
from sel.training import Config, build_parts
from sel.training.sharding import check_batch_size, make_mesh, state_shardings
from sel.training.state import abstract_state

# One operation for each element of the result, or of what is summed up.
_ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "neg", "max", "min", "abs", "sqrt", "rsqrt", "integer_pow"}
_ELEMENTWISE |= {"square", "pow", "exp", "log", "sin", "cos", "tanh", "logistic"}
_REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min"}


@dataclass(frozen=True)
class Summary:
    """What one training step works on.

    Attributes:
      network: its name.
      parameters: number of each part of the network.
      batch: images, and the side of their square crops.
      forward_flops: operations of the network in one forward pass over the whole batch.
      passes: what a step takes as multiples of that; a backward pass is two.
      devices: that share it.
      state_bytes: parameters, their average and the optimizer's state, on each device.
      gradient_bytes: gradients, on each device, and parameters that are gathered from others.
      saved_bytes: what the forward pass keeps for the backward pass, on each device.
      warmup: steps of the warm-up, and those that the configuration asks for.
    """

    network: str
    parameters: dict[str, int]
    batch: tuple[int, int]
    forward_flops: int
    passes: int
    devices: int
    state_bytes: int
    gradient_bytes: int
    saved_bytes: int
    warmup: tuple[int, int]


def summarize(config: Config) -> Summary:
    """The summary of a configuration on the devices of this process.

    Raises:
      UserError: if a value of the configuration is wrong, or does not fit the number of devices.
    """
    parts, compute = build_parts(config), config.compute
    check_batch_size(config.batch_size, compute.accumulate)
    mesh = make_mesh(compute.parameter_shards)
    state = abstract_state(parts.module, parts.optimizer)
    # Gradients are whole on every device, and so are parameters in a step, wherever they lie between steps.
    copies = 1 + (compute.accumulate > 1) + (compute.parameter_shards != 1)
    batch, crop = config.batch_size, config.data.crop_size
    module = parts.module.clone(remat=compute.remat)
    part = batch // mesh.size // compute.accumulate
    return Summary(
        network=name_of(MODELS, config.model),
        parameters=count_parameters(state.params),
        batch=(batch, crop),
        forward_flops=network_flops(parts.module, state.params, batch, crop),
        passes=3 + bool(compute.remat),
        devices=mesh.size,
        state_bytes=_bytes(state, state_shardings(state, mesh)),
        gradient_bytes=copies * _bytes(state.params),
        saved_bytes=saved_bytes(module, state.params, part, crop),
        warmup=(config.optimizer.warmup(config.num_steps), config.optimizer.warmup_steps),
    )


def count_parameters(params: Any) -> dict[str, int]:
    """Number of parameters of each part: modules whose names begin alike, such as `encoder_0` and `encoder_1`."""
    parts: dict[str, int] = {}
    for name, subtree in params.items():
        part = name.split("_")[0]
        parts[part] = parts.get(part, 0) + sum(leaf.size for leaf in jax.tree.leaves(subtree))
    return parts


def network_flops(module: nn.Module, params: Any, batch: int, crop: int) -> int:
    """Additions and multiplications of one forward pass, as `count_flops` counts them.

    The compiler's own count agrees to 0.3 % where there is no loop, but takes the blocks of a stage, which are a loop,
    for one.
    """
    return count_flops(jax.make_jaxpr(_apply(module))(params, *_inputs(batch, crop)).jaxpr)


def saved_bytes(module: nn.Module, params: Any, batch: int, crop: int) -> int:
    """Bytes that the forward pass keeps for the backward pass, without the parameters.

    With the gradients, a lower bound: the compiler takes up to a third more for the network on CPU, see
    docs/benchmarks/estimates.md.
    """

    def backward(params: Any, *inputs: Any) -> Any:
        return jax.vjp(lambda p: _apply(module)(p, *inputs), params)[1]

    kept = jax.eval_shape(backward, params, *_inputs(batch, crop))
    return max(0, _bytes(kept) - _bytes(params))


def count_flops(jaxpr: Jaxpr) -> int:
    """Floating-point operations of a program: two for each multiplication with addition in a product or convolution.

    Loops count as often as they run; of a `while` loop that is unknown, and it counts once. Of branches the longest one
    counts.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inner: list[Any] = [getattr(v, "jaxpr", v) for v in params.values() if isinstance(v, (ClosedJaxpr, Jaxpr))]
        inputs: list[Any] = [x.aval for x in equation.invars]
        results: list[Any] = [x.aval for x in equation.outvars]
        if name == "cond":
            total += max(count_flops(branch.jaxpr) for branch in params["branches"])
        elif inner:
            total += (params["length"] if name == "scan" else 1) * sum(count_flops(program) for program in inner)
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            total += 2 * results[0].size * math.prod(inputs[0].shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            total += 2 * results[0].size * inputs[1].size // inputs[1].shape[params["dimension_numbers"].rhs_spec[0]]
        elif name in _ELEMENTWISE:
            total += results[0].size
        elif name in _REDUCTIONS:
            total += inputs[0].size
    return total


def print_summary(summary: Summary) -> None:
    """Print the parts of the network, and what a step costs."""
    total, (batch, crop) = sum(summary.parameters.values()), summary.batch
    table = Table(title=f"Network {summary.network}")
    for heading in ("part", "parameters", "share"):
        table.add_column(heading, justify="right" if table.columns else "left")
    for part, count in sorted(summary.parameters.items(), key=lambda item: -item[1]):
        table.add_row(part, f"{count:,}", f"{count / total:.1%}")
    table.add_row("all", f"{total:,}", "100.0%", style="bold")
    console.print(table)
    console.print(
        f"A step of {batch} crops of {crop} x {crop}: {_short(summary.passes * summary.forward_flops)}FLOP in the "
        f"network, {summary.passes} times its forward pass; the loss comes on top."
    )
    used = (summary.state_bytes, summary.gradient_bytes, summary.saved_bytes)
    state, gradients, saved, together = map(size, (*used, sum(used)))
    devices = f"each of {summary.devices} devices" if summary.devices > 1 else "the device"
    console.print(
        f"Memory of {devices}: {state} of parameters, their average and the optimizer; in a step "
        f"{gradients} of gradients and {saved} for the backward pass; at least {together}, the loss comes on top."
    )
    print_warmup(*summary.warmup)


def print_warmup(warmup: int, asked: int) -> None:
    """Print that the warm-up is shorter than the configuration asks, if it is."""
    if warmup < asked:
        console.print(
            f"The learning rate warms up over {warmup} steps, half of this short run (config.optimizer.warmup_steps is "
            f"{asked})."
        )


def print_compiled(compiled: jax.stages.Compiled) -> None:
    """Print what the compiler says of the memory of a step, where it says anything."""
    memory = compiled.memory_analysis()
    if memory is None or not memory.temp_size_in_bytes:
        return
    held = memory.argument_size_in_bytes
    console.print(
        f"Compiled, with the loss: {size(held)} of state and images and {size(memory.temp_size_in_bytes)} of "
        f"temporaries; {size(held + memory.temp_size_in_bytes)} in all."
    )


def size(count: float) -> str:
    """Bytes as a person reads them."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log2(max(count, 1)) / 10), len(units) - 1)
    return f"{count / 2 ** (10 * power):.{1 if power else 0}f} {units[power]}"


def _short(count: float) -> str:
    units = ("", " K", " M", " G", " T", " P")
    power = min(int(math.log10(max(count, 1)) / 3), len(units) - 1)
    return f"{count / 10 ** (3 * power):.{1 if power else 0}f}{units[power]}"


def _apply(module: nn.Module) -> Any:
    return lambda params, x_t, mu, t: module.apply({"params": params}, x_t, mu, t)


def _inputs(batch: int, crop: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    images = jax.ShapeDtypeStruct((batch, crop, crop, 3), jnp.float32)
    return images, images, jax.ShapeDtypeStruct((batch,), jnp.int32)


def _bytes(tree: Any, shardings: Any = None) -> int:
    leaves = jax.tree.leaves(tree)
    shapes = [leaf.shape for leaf in leaves]
    if shardings is not None:
        shapes = [s.shard_shape(shape) for s, shape in zip(jax.tree.leaves(shardings), shapes, strict=True)]
    return sum(math.prod(shape) * leaf.dtype.itemsize for shape, leaf in zip(shapes, leaves, strict=True))
