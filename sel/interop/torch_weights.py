"""Published PyTorch weights, tensor by tensor, to and from the parameters of our networks.

Pure functions over dicts of NumPy arrays that carry the published names; `sel.interop.torch_files` does the reading and
writing.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sel.errors import UserError
from sel.models import ConditionalNAFNet, ConditionalUNet

Tensors = Mapping[str, np.ndarray]
Params = Mapping[str, Any]
Network = ConditionalNAFNet | ConditionalUNet


class Layout(NamedTuple):
    """How one kind of tensor is arranged on the two sides."""

    to_flax: Callable[[Any], Any]
    to_torch: Callable[[Any], Any]


VECTOR = Layout(lambda a: a, lambda a: a)
CHANNELS = Layout(lambda a: a.reshape(-1), lambda a: a.reshape(1, -1, 1, 1))
DENSE = Layout(lambda a: a.T, lambda a: a.T)
POINTWISE = Layout(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None])
CONV = Layout(lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1))
DEPTHWISE = Layout(lambda a: a[:, 0].transpose(1, 2, 0), lambda a: a.transpose(2, 0, 1)[:, None])
# A 2 x 2 strided convolution is a matrix over (row, column, channel); a pixel shuffle puts its channels last in that
# order too, where PyTorch puts them first.
STRIDED = Layout(
    lambda a: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
    lambda a: a.reshape(2, 2, -1, a.shape[1]).transpose(3, 2, 0, 1),
)
SHUFFLED = Layout(
    lambda a: a.reshape(-1, 2, 2, a.shape[1]).transpose(3, 1, 2, 0).reshape(a.shape[1], -1),
    lambda a: a.reshape(a.shape[0], 2, 2, -1).transpose(3, 1, 2, 0).reshape(-1, a.shape[0], 1, 1),
)


class Entry(NamedTuple):
    """One published tensor: its name, the parameter it belongs to, its position in a stack of blocks, its layout."""

    name: str
    param: str
    layout: Layout
    block: int | None = None


def network_from_torch(tensors: Tensors) -> tuple[Network, dict[str, Any]]:
    """Build the network that published weights belong to.

    Args:
      tensors: published name -> array. The architecture is read off names and shapes.

    Returns:
      The network and its parameters (float32 NumPy arrays), for `network.apply({"params": params}, x_t, mu, t)`.

    Raises:
      UserError: if tensors are missing, unexpected, of the wrong shape, not floating point or not finite: one message
        names them (the first twenty of each kind). Or the network is none that sees a degraded image.
    """
    network: Network
    if _any_begins(tensors, "intro.", "middle_blks."):
        network, first, last = _nafnet(tensors), "intro", "ending"
    elif _any_begins(tensors, "init_conv.", "mid_block1."):
        network, first, last = _unet(tensors), "init_conv", "final_conv"
    else:
        raise UserError(
            "these weights belong to no network known here: there is neither intro.weight (NAFNet) nor "
            f"init_conv.weight (U-Net) among the {len(tensors)} tensors"
        )
    # The first layer sees the state and the degraded image.
    channels = _size(tensors, (f"{last}.bias", 0), (f"{last}.weight", 0), (f"{first}.weight", 1, 2))
    if f"{first}.weight" in tensors and tensors[f"{first}.weight"].shape[1:2] == (channels,):
        raise UserError(
            f"{first}.weight sees {channels} channels: these weights belong to a network that sees the noisy state "
            "alone, as those of IR-SDE's denoising do, and here networks see the degraded image too"
        )
    return network, _from_torch(tensors, network, channels)


def network_to_torch(network: Network, params: Params) -> dict[str, np.ndarray]:
    """Name and arrange parameters as the published weights; the inverse of `network_from_torch`.

    Args:
      network: the network.
      params: its parameters.

    Returns:
      Published name -> array.
    """
    return _to_torch(jax.tree.map(np.asarray, params), _entries(network))


def _nafnet(tensors: Tensors) -> ConditionalNAFNet:
    levels = range(_depth(tensors))
    return _made(
        ConditionalNAFNet,
        width=_size(tensors, ("intro.bias", 0), ("intro.weight", 0), ("ending.weight", 1)),
        encoder_blocks=tuple(len(_numbers(tensors, f"encoders.{level}")) for level in levels),
        middle_blocks=len(_numbers(tensors, "middle_blks")),
        decoder_blocks=tuple(len(_numbers(tensors, f"decoders.{level}")) for level in levels),
    )


def _unet(tensors: Tensors) -> ConditionalUNet:
    width = _size(tensors, ("init_conv.weight", 0), ("final_conv.weight", 1), ("time_mlp.1.weight", 1))
    return _made(ConditionalUNet, width=width, depth=_depth(tensors))


def _made(kind: type[Any], **fields: Any) -> Any:
    """The network of these fields, unless it refuses them."""
    try:
        return kind(**fields)
    except ValueError as error:
        raise UserError(f"these weights fit no {kind.__name__}: {error}") from error


def _entries(network: Network) -> list[Entry]:
    return _nafnet_entries(network) if isinstance(network, ConditionalNAFNet) else _unet_entries(network)


def _nafnet_entries(network: ConditionalNAFNet) -> list[Entry]:
    entries = [
        *_layer("time_mlp.1", "time_1", DENSE),
        *_layer("time_mlp.3", "time_2", DENSE),
        *_layer("intro", "intro", CONV),
        *_layer("ending", "ending", CONV),
    ]
    for level, blocks in enumerate(network.encoder_blocks):
        entries += _layer(f"downs.{level}", f"down_{level}", STRIDED)
        entries += _nafblock_entries(f"encoders.{level}", f"encoder_{level}", blocks)
    entries += _nafblock_entries("middle_blks", "middle", network.middle_blocks)
    for level, blocks in enumerate(network.decoder_blocks):
        entries.append(Entry(f"ups.{level}.0.weight", f"up_{level}/kernel", SHUFFLED))
        entries += _nafblock_entries(f"decoders.{level}", f"decoder_{level}", blocks)
    return entries


def _nafblock_entries(name: str, param: str, blocks: int) -> Iterator[Entry]:
    layouts = {"time": DENSE, "conv2": DEPTHWISE}
    names = {"time": "mlp.1", "attention": "sca.1"}
    for i in range(blocks):
        for layer in ("time", "conv1", "conv2", "attention", "conv3", "conv4", "conv5"):
            layout = layouts.get(layer, POINTWISE)
            yield from _layer(f"{name}.{i}.{names.get(layer, layer)}", f"{param}/{layer}", layout, i)
        for norm in ("norm1", "norm2"):
            yield Entry(f"{name}.{i}.{norm}.g", f"{param}/{norm}/scale", CHANNELS, i)
        for weight in ("beta", "gamma"):
            yield Entry(f"{name}.{i}.{weight}", f"{param}/{weight}", CHANNELS, i)


def _unet_entries(network: ConditionalUNet) -> list[Entry]:
    last = network.depth - 1
    entries = [
        *_layer("time_mlp.1", "time_1", DENSE),
        *_layer("time_mlp.3", "time_2", DENSE),
        Entry("init_conv.weight", "intro/kernel", CONV),
        *_layer("final_conv", "ending", CONV),
        *_resblock_entries("final_res_block", "ending_block", shortcut=True),
        *_resblock_entries("mid_block1", "middle_block1", shortcut=False),
        *_resblock_entries("mid_block2", "middle_block2", shortcut=False),
        *_attention_entries("mid_attn", "middle_attention"),
    ]
    for level in range(network.depth):
        for side in ("down", "up"):
            name, param = f"{side}s.{level}", f"{side}_{level}"
            entries += _resblock_entries(f"{name}.0", f"{param}_block1", shortcut=side == "up")
            entries += _resblock_entries(f"{name}.1", f"{param}_block2", shortcut=side == "up")
            entries += _attention_entries(f"{name}.2", f"{param}_attention")
            resize = f"{name}.3.1" if side == "up" and level < last else f"{name}.3"
            entries += _layer(resize, f"{param}_resize", CONV)[: 1 if level == last else 2]
    return entries


def _resblock_entries(name: str, param: str, shortcut: bool) -> Iterator[Entry]:
    yield from _layer(f"{name}.mlp.1", f"{param}/time", DENSE)
    for i in (1, 2):
        yield Entry(f"{name}.block{i}.proj.weight", f"{param}/conv{i}/kernel", CONV)
    if shortcut:
        yield Entry(f"{name}.res_conv.weight", f"{param}/shortcut/kernel", POINTWISE)


def _attention_entries(name: str, param: str) -> Iterator[Entry]:
    yield Entry(f"{name}.fn.norm.g", f"{param}/norm/scale", CHANNELS)
    yield Entry(f"{name}.fn.fn.to_qkv.weight", f"{param}/qkv/kernel", POINTWISE)
    yield from _layer(f"{name}.fn.fn.to_out.0", f"{param}/out", POINTWISE)
    yield Entry(f"{name}.fn.fn.to_out.1.g", f"{param}/out_norm/scale", CHANNELS)


def _layer(name: str, param: str, layout: Layout, block: int | None = None) -> list[Entry]:
    return [
        Entry(f"{name}.weight", f"{param}/kernel", layout, block),
        Entry(f"{name}.bias", f"{param}/bias", VECTOR, block),
    ]


def _to_torch(params: Params, entries: list[Entry]) -> dict[str, Any]:
    flat = flatten_dict(params, sep="/")
    return {
        entry.name: entry.layout.to_torch(flat[entry.param] if entry.block is None else flat[entry.param][entry.block])
        for entry in entries
    }


def _from_torch(tensors: Tensors, network: Network, channels: int) -> dict[str, Any]:
    """Check every tensor against the network, then arrange them as its parameters."""
    entries = _entries(network)
    image, t = jax.ShapeDtypeStruct((1, 1, 1, channels), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    try:
        abstract = jax.eval_shape(network.init, jax.random.key(0), image, image, t)["params"]
    except ValueError as error:
        raise UserError(f"these weights fit no {type(network).__name__}: {error}") from error
    expected = jax.eval_shape(lambda params: _to_torch(params, entries), abstract)
    _check(tensors, {name: tensor.shape for name, tensor in expected.items()}, type(network).__name__)

    flat: dict[str, Any] = {}
    for entry in entries:
        array = entry.layout.to_flax(np.asarray(tensors[entry.name], np.float32))
        if entry.block is None:
            flat[entry.param] = array
        else:
            flat.setdefault(entry.param, []).append(array)
    stacked = {param: np.stack(array) if isinstance(array, list) else array for param, array in flat.items()}
    return unflatten_dict(stacked, sep="/")


def _check(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], network: str) -> None:
    present = [name for name in shapes if name in tensors]
    problems = {
        "missing": [name for name in shapes if name not in tensors],
        "unexpected": [str(name) for name in tensors if name not in shapes],
        "wrong shape": [
            f"{name} {tensors[name].shape} instead of {shapes[name]}"
            for name in present
            if tensors[name].shape != shapes[name]
        ],
        "not floating point": [
            f"{name} ({tensors[name].dtype})" for name in present if not np.issubdtype(tensors[name].dtype, np.floating)
        ],
    }
    if not problems["not floating point"]:
        problems["not finite"] = [name for name in present if not np.isfinite(tensors[name]).all()]
    found = [f"{len(names)} {problem}: {_shortened(names)}" for problem, names in problems.items() if names]
    if found:
        raise UserError(f"these weights do not fit a {network}: {'; '.join(found)}")


def _shortened(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _any_begins(tensors: Tensors, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in tensors)


def _size(tensors: Tensors, *witnesses: tuple[str, int] | tuple[str, int, int]) -> int:
    """What most tensors say, each by its size along an axis, divided by a number if there is one.

    One of them may be damaged, and is named for it later.
    """
    sizes = [
        tensors[name].shape[axis] // (divisor[0] if divisor else 1)
        for name, axis, *divisor in witnesses
        if name in tensors and tensors[name].ndim > axis
    ]
    if not sizes:
        names = ", ".join(name for name, *_ in witnesses)
        raise UserError(f"these weights belong to no network known here: no tensor {names} with enough axes")
    return statistics.mode(sizes)


def _depth(tensors: Tensors) -> int:
    depth = len(_numbers(tensors, "downs"))
    # Channels double at each level: ten of them are a thousandfold.
    if depth > 10:
        raise UserError(f"these weights belong to no network known here: {depth} levels, at most 10 make sense")
    return depth


def _numbers(tensors: Tensors, prefix: str) -> set[str]:
    """The distinct numbers that follow `prefix.` in the names."""
    parts = {name.removeprefix(f"{prefix}.").split(".")[0] for name in tensors if name.startswith(f"{prefix}.")}
    return {part for part in parts if part.isdecimal()}
