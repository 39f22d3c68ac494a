"""The pictures of docs/lowlight.md: what the camera model makes of a photograph, and its variance against the signal.

    python -m benchmarks.lowlight_picture --output=docs/images

The photographs come with scikit-image.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from sel.camera import darken, jpeg, linear_to_srgb, sample_camera, srgb_to_linear
from sel.data import sample_pairs

# One effect after the other, on the same photograph and with the same noise.
GAINS = {"white_balance": jnp.array([2.1, 1.0, 1.7])}
NOISE = {"shot_noise": 1e-3, "read_noise": 2e-3}
NO_NOISE = {"shot_noise": 0.0, "read_noise": 0.0}
STEPS: dict[str, dict[str, Any]] = {
    "exposure 0.05": {"exposure": 0.05, **NO_NOISE},
    "and noise": {"exposure": 0.05, **NOISE},
    "amplified by white balance": {"exposure": 0.05, **NOISE, **GAINS},
    "and a cast": {"exposure": 0.05, **NOISE, **GAINS, "cast": jnp.array([1.25, 1.0, 0.75])},
    "and JPEG, quality 50": {
        "exposure": 0.05,
        **NOISE,
        **GAINS,
        "cast": jnp.array([1.25, 1.0, 0.75]),
        "jpeg_quality": 50.0,
    },
}


def photographs() -> tuple[jax.Array, jax.Array]:
    """A cup of coffee and a cat, in [0, 1]."""
    _, (cat, coffee) = sample_pairs(darkenings=1)
    x0, other = (jnp.asarray(pair.x0[:288, 60:444], jnp.float32) / 255 for pair in (coffee, cat))
    return x0, other


def brightened(mu: jax.Array, exposure: float) -> jax.Array:
    """Divided by the exposure in linear light, so that noise and cast are seen."""
    return linear_to_srgb(jnp.clip(srgb_to_linear(mu) / exposure, 0, 1))


def show(axes: Axes, image: jax.Array, title: str) -> None:
    """An image without ticks."""
    axes.imshow(np.asarray(jnp.clip(image, 0, 1)), interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def effects(path: Path) -> None:
    """Each step as it is stored, and brightened."""
    x0, _ = photographs()
    figure, axes = pyplot.subplots(2, len(STEPS) + 1, figsize=(13, 3.9), layout="constrained")
    show(axes[0, 0], x0, "photograph")
    show(axes[1, 0], jpeg(x0, quality=50), "JPEG alone, quality 50")
    for (title, options), column in zip(STEPS.items(), axes.T[1:], strict=True):
        mu = darken(jax.random.key(0), x0, **options)
        show(column[0], mu, title)
        show(column[1], brightened(mu, options["exposure"]), "the same, brightened")
    figure.savefig(path, dpi=80)


def cameras(path: Path, count: int = 6) -> None:
    """Cameras as they are drawn for training."""
    _, x0 = photographs()
    figure, axes = pyplot.subplots(2, count, figsize=(13, 3.9), layout="constrained")
    for i, column in enumerate(axes.T):
        key_camera, key_noise = jax.random.split(jax.random.key(i))
        camera = sample_camera(key_camera)
        mu = darken(key_noise, x0, **camera)
        exposure = float(camera["exposure"])
        show(column[0], mu, f"exposure {exposure:.3f}")
        show(column[1], brightened(mu, exposure), f"shot noise {float(camera['shot_noise']):.1e}")
    figure.savefig(path, dpi=80)


def variance(path: Path) -> None:
    """Measured variance of flat patches against the model's line, in linear light, before it is rounded and after."""
    levels = jnp.linspace(0, 1, 41)
    x0 = jnp.broadcast_to(linear_to_srgb(levels)[:, None, None, None], (41, 200, 200, 1))
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for (shot, read), colour in zip(((2e-3, 0.0), (1e-3, 5e-3), (2e-4, 1e-2)), ("C0", "C1", "C2"), strict=True):
        light = srgb_to_linear(darken(jax.random.key(1), x0, exposure=0.5, shot_noise=shot, read_noise=read))
        signal = 0.5 * np.asarray(levels)
        axes[0].plot(signal, np.asarray(light.var((1, 2, 3))), "o", ms=3, color=colour)
        axes[0].plot(signal, shot * signal + read**2, color=colour, label=f"shot {shot:g}, read {read:g}")
        axes[1].plot(signal, np.asarray(light.mean((1, 2, 3))) - signal, "o-", ms=3, color=colour)
    axes[0].set(xlabel="signal, linear light", ylabel="variance", title="dots: images; lines: shot S + read²")
    axes[1].set(xlabel="signal, linear light", ylabel="mean - signal", title="black is cut off: a little brighter")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    output = parser.parse_args().output
    effects(output / "lowlight_steps.png")
    cameras(output / "lowlight_cameras.png")
    variance(output / "lowlight_variance.png")


if __name__ == "__main__":
    main()
