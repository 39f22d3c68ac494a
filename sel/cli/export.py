"""Write a trained model's sampler as portable StableHLO, which runs with JAX alone: no `sel`, no Flax, no checkpoint.

    sel export --checkpoint=runs/quickstart --output=sampler.stablehlo
    sel export --checkpoint=runs/quickstart --output=sampler.stablehlo --size=400x600

Beside the file, a description of the same name ending in .json. How to call it: docs/export.md.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax import export

from sel.choices import to_dict
from sel.cli.arguments import define_path
from sel.cli.console import console, require, run
from sel.diffusion import SAMPLERS
from sel.errors import UserError
from sel.files import make_folder, write_whole
from sel.restoration import MARGIN, MULTIPLE, Restore, extended
from sel.restorer import with_sampler
from sel.training import ModelConfig, build_restore, find_checkpoint, read_config, read_params, sampler_steps

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
# FlatBuffers, in which JAX writes, end here; the parameters are most of the file.
_MAX_PARAMETERS = 2**31 / 4

_CHECKPOINT = define_path("checkpoint", "", "Folder of a training run, or one of its checkpoints.")
_OUTPUT = define_path("output", "", "File to write; its description gets the same name, ending in .json.")
_SIZE = flags.DEFINE_string("size", None, "HEIGHTxWIDTH, e.g. 400x600; by default any multiple of 32 (symbolic).")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "Images of one call.", lower_bound=1)
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], f"Some of {', '.join(PLATFORMS)}.")
_METHOD = flags.DEFINE_enum("method", None, list(SAMPLERS), "Sampler; by default that of the checkpoint.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of the sampler; by default those of the checkpoint.", lower_bound=1)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that exist.")


def main() -> None:
    """Export, write, say what was written."""
    output = Path(_OUTPUT.value)
    description = output.with_suffix(".json")
    check_flags(output, description, overwrite=_OVERWRITE.value)
    checkpoint = find_checkpoint(_CHECKPOINT.value)
    config = with_sampler(read_config(checkpoint), _METHOD.value, _STEPS.value)
    restore, params = build_restore(config).whole, read_params(checkpoint)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    if count >= _MAX_PARAMETERS:
        raise UserError(f"{checkpoint}: {count / 1e6:.0f} M parameters; one file holds fewer than 536 M")
    sides = parse_size(_SIZE.value) if _SIZE.value else symbolic_sides(config)
    exported = export_restore(restore, params, (_BATCH_SIZE.value, *sides, 3), platforms=_PLATFORMS.value)
    content = bytes(exported.serialize())
    make_folder(output.parent)
    write_whole(output, content)
    sampler = {**to_dict(config.sampler), "num_steps": sampler_steps(config)}
    text = json.dumps(describe(exported, sampler, count), indent=2)
    write_whole(description, (text + "\n").encode())
    console.print(f"{output}, {len(content) / 1e6:.1f} MB, and {description}")


def check_flags(output: Path, description: Path, *, overwrite: bool) -> None:
    """Refuse what would fail at the end, before the work.

    Raises:
      UserError: a file exists, is a folder or has the name of its own description; an unknown platform.
    """
    for path in (output, description):
        if path.is_dir():
            raise UserError(f"--output={output}: {path} is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists already; choose another --output or give --overwrite")
    if output == description:
        raise UserError(f"--output={output}: this is the name of the description; choose another, e.g. .stablehlo")
    unknown = [name for name in _PLATFORMS.value if name not in PLATFORMS]
    if unknown or not _PLATFORMS.value:
        raise UserError(f"--platforms={','.join(_PLATFORMS.value)}: expected some of {','.join(PLATFORMS)}")


def parse_size(text: str) -> tuple[int, int]:
    """`400x600` is a height of 400 and a width of 600.

    Raises:
      UserError: it is nothing of the kind.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise UserError(f"--size={text}: expected HEIGHTxWIDTH in pixels, e.g. 400x600")
    return int(match[1]), int(match[2])


def symbolic_sides(config: ModelConfig) -> Sequence[Any]:
    """Any multiples of what the network halves its sides to, and of that by which `enhance` extends images."""
    model: Any = config.model
    depth = model.depth if hasattr(model, "depth") else len(model.encoder_blocks)
    multiple = max(2**depth, MULTIPLE)
    return export.symbolic_shape(f"{multiple}*h, {multiple}*w")


def export_restore(restore: Restore, params: Any, shape: Sequence[Any], *, platforms: Sequence[str]) -> export.Exported:
    """Trace `sample(seed, mu) -> x0_hat` around parameters that become part of it.

    Args:
      restore: the sampler, `restore(key, params, mu)`.
      params: of its network.
      shape: of `mu`, `[b, h, w, 3]`; height and width may be those of `symbolic_sides`.
      platforms: where it is to run.

    Returns:
      What is serialized.
    """

    def sample(seed: jax.Array, mu: jax.Array) -> jax.Array:
        key = jax.random.key(seed)
        _, h, w, _ = mu.shape
        if any(map(export.is_symbolic_dim, (h, w))):
            return restore(key, params, mu)
        # As `enhance` does: the network's means are taken over what it sees.
        margins = [(MARGIN, extended(side) - side - MARGIN) for side in (h, w)]
        mu = jnp.pad(mu, ((0, 0), *margins, (0, 0)), mode="symmetric")
        return restore(key, params, mu)[:, MARGIN : MARGIN + h, MARGIN : MARGIN + w]

    arguments = (jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
    return export.export(jax.jit(sample), platforms=platforms)(*arguments)


def describe(exported: export.Exported, sampler: dict[str, Any], num_parameters: int) -> dict[str, Any]:
    """What a caller has to know, as JSON."""
    shape = [side if isinstance(side, int) else str(side) for side in exported.in_avals[1].shape]
    image = {"shape": shape, "dtype": "float32", "range": [0, 1], "axes": "batch, height, width, RGB (sRGB values)"}
    return {
        "call": "jax.export.deserialize(bytearray(open(FILE, 'rb').read())).call(numpy.uint32(seed), mu)",
        "inputs": {"seed": {"shape": [], "dtype": "uint32"}, "mu": image | {"meaning": "dark images"}},
        "output": image | {"meaning": "bright images"},
        "sampler": sampler,
        "num_parameters": num_parameters,
        "platforms": list(exported.platforms),
        "jax_version": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
    }


def start() -> None:
    """Parse the command line and run."""
    require("checkpoint", "output")
    run(main)
