"""Turn published PyTorch weights into a checkpoint that `enhance`, `evaluate` and `train` take.

    sel convert lolv1.pth --output=runs/lolv1
    sel enhance --checkpoint=runs/lolv1 --input=night.jpg --output=night_bright.png
    python -m experiments.train --config=configs/published.py --config.init_from=runs/lolv1 ...

The network is read off the tensors; the diffusion it was trained with is not in the file. --preset names it. All
published models have a cosine schedule of 100 steps and eps 0.005; they differ in the noise level max_sigma, here in
steps of 1/255:

  low-light         50   this paper: LOL v1, LOL v2 real, NTIRE 2024; a NAFNet (options/test/refusion.yml of its code)
  refusion          50   Refusion's NAFNets for deblurring, shadow removal and (stereo) super-resolution (refusion.yml)
  deraining         10   IR-SDE's U-Net (ir-sde.yml of codes/config/deraining), and so on:
  deblurring        10
  super-resolution  30   on images enlarged to the size of the result
  inpainting        30
  shadow-removal    30   a U-Net of width 32 and depth 5

in the option files of github.com/shermanlian/spatial-entropy-loss and github.com/Algolzw/image-restoration-sde. Without
--preset, a NAFNet is taken for `low-light` and a U-Net for `deraining`; other values can be given one by one. The
sampler is `posterior`, which both use since April 2024; that of the papers of 2023 is --method=sde.

Not to be had: IR-SDE's denoising, a network that sees no degraded image, and Refusion's models that work on the latent
images of another network (4 or 8 channels).
"""

import os
import shlex
from pathlib import Path
from typing import Any

import jax
from absl import flags

from sel.choices import parse, to_dict
from sel.cli.arguments import command, define_path, refuse_unused
from sel.cli.console import console, require, run
from sel.errors import UserError
from sel.interop import load_torch_checkpoint
from sel.training import ModelConfig, check_new_params, save_params

# max_sigma in steps of 1/255.
PRESETS = {
    "low-light": 50.0,
    "refusion": 50.0,
    "deraining": 10.0,
    "deblurring": 10.0,
    "super-resolution": 30.0,
    "inpainting": 30.0,
    "shadow-removal": 30.0,
}
_ASSUMED = {"nafnet": "low-light", "unet": "deraining"}

_OUTPUT = define_path("output", "", "Folder for the checkpoint.")
_PRESET = flags.DEFINE_string("preset", "", f"What the model was published for: {', '.join(PRESETS)}.")
_MAX_SIGMA = flags.DEFINE_float("max_sigma", None, "Noise level of the diffusion, in steps of 1/255, as published.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 100, "Steps T of the diffusion.")
_KIND = flags.DEFINE_string("kind", "cosine", "Schedule: cosine, linear or constant.")
_EPS = flags.DEFINE_float("eps", 0.005, "What is left of the clean image after the last step.")
_METHOD = flags.DEFINE_string("method", "posterior", "Sampler: posterior, sde or ode.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a converted checkpoint in --output.")


def main(arguments: list[str]) -> None:
    """Convert one file, say what was found in it and what to do next."""
    source, output = Path(arguments[0]), Path(_OUTPUT.value)
    check_new_params(output, overwrite=_OVERWRITE.value)
    network, params = load_torch_checkpoint(source)
    channels = params["ending"]["bias"].size
    if channels != 3:
        raise UserError(f"{source}: a network for images of {channels} channels; here photographs have 3")
    model = to_dict(ModelConfig(model=network))["model"]
    preset = _PRESET.value or _ASSUMED[model["name"]]
    config = configuration(model, preset)
    describe(source, config, params, preset + ("" if _PRESET.value else " (assumed; see --preset)"))
    save_params(output, params, config, overwrite=_OVERWRITE.value)
    folder = shlex.quote(str(output))
    console.print(f"\nCheckpoint: {output}. Enhance a photograph with it:")
    console.print(f"  {command('enhance')} --checkpoint={folder} --input=PHOTO.jpg --output=PHOTO_bright.png")


def configuration(model: dict[str, Any], preset: str) -> ModelConfig:
    """What a checkpoint says of itself, from the flags.

    Raises:
      UserError: if there is no such preset, the noise level is given in other units, or a flag has no such value.
    """
    refuse_unused(["preset"], unless=_MAX_SIGMA.value is None, reason="beside --max_sigma, which is all that it names")
    if preset not in PRESETS:
        raise UserError(f"--preset={preset}: choose one of {', '.join(PRESETS)}")
    max_sigma = PRESETS[preset] if _MAX_SIGMA.value is None else _MAX_SIGMA.value
    if not 1 <= max_sigma <= 255:
        raise UserError(f"--max_sigma={max_sigma:g}: give it in steps of 1/255, from 1 to 255, like the published 50")
    diffusion = {"kind": _KIND.value, "num_steps": _NUM_STEPS.value, "max_sigma": max_sigma / 255, "eps": _EPS.value}
    # The published samplers do not clip, and take all steps.
    sampler = {"method": _METHOD.value, "num_steps": _NUM_STEPS.value}
    return parse(ModelConfig, {"model": model, "diffusion": diffusion, "sampler": sampler})


def describe(source: Path, config: ModelConfig, params: Any, preset: str) -> None:
    """Print the network, its size and the diffusion."""
    model, diffusion = to_dict(config)["model"], config.diffusion
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    sizes = ", ".join(f"{key} {value}" for key, value in model.items() if key not in ("name", "dtype"))
    console.print(f"{source} ({os.path.getsize(source) / 2**20:.1f} MiB): {model['name']}, {sizes}")
    console.print(f"{count:,} parameters, {4 * count / 2**20:,.1f} MiB of memory")
    steps = f"{diffusion.kind} schedule of {diffusion.num_steps} steps"
    levels = f"max_sigma {255 * diffusion.max_sigma:g}/255, eps {diffusion.eps:g}"
    console.print(f"{preset}: {steps}, {levels}; sampler {to_dict(config)['sampler']['method']}")


def start() -> None:
    """Parse the command line and run."""
    require("output")
    run(main, file="a file of PyTorch weights")
