"""The pictures of docs/loss.md: what the loss sees, and how it judges damage that l1 and SSIM judge otherwise.

python -m benchmarks.loss_picture --output=docs/images
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot

import sel
from sel.data import sample_pairs
from sel.entropy.neighborhood import blur
from sel.metrics import ssim

# Row and column of the pixels whose densities are shown: flat, textured, on an edge.
PIXELS = {"flat": (20, 108), "texture": (92, 60), "edge": (58, 44)}


def photograph(size: int = 128) -> jax.Array:
    """A crop of a cat's face, `[size, size, 3]` in [0, 1]."""
    _, (cat, *_) = sample_pairs(darkenings=1)
    return jnp.asarray(cat.x0[60 : 60 + size, 120 : 120 + size], jnp.float32) / 255


def damages(x: jax.Array) -> dict[str, tuple[np.ndarray, str, Callable[[float], jax.Array]]]:
    """Ways to spoil an image: strengths, what they are called, and the spoilt image for each."""
    noise = jax.random.normal(jax.random.key(0), x.shape)
    return {
        "blur": (np.linspace(0.25, 3, 8), "standard deviation, pixels", lambda s: blur(x, s)),
        "noise": (np.linspace(0.01, 0.2, 8), "standard deviation", lambda s: jnp.clip(x + s * noise, 0, 1)),
        "shift": (np.arange(1.0, 9.0), "pixels", lambda s: jnp.roll(x, int(s), 1)),
        "darkening": (np.linspace(0.05, 0.9, 8), "light taken away", lambda s: (1 - s) * x),
    }


def draw_densities(path: Path) -> None:
    """An image and its joint densities at three pixels, for each window."""
    x, windows = photograph(), (1, 3, 5)
    densities = sel.joint_density(x[..., 1:2], num_bins=32, windows=windows)
    figure, axes = pyplot.subplots(len(PIXELS), 1 + len(windows), figsize=(9, 7), layout="constrained")
    for row, (name, (i, j)) in zip(axes, PIXELS.items(), strict=True):
        row[0].imshow(x)
        row[0].plot(j, i, "s", markersize=9, markerfacecolor="none", markeredgecolor="red")
        row[0].set_title(name)
        row[0].axis("off")
        for axis, k, density in zip(row[1:], windows, densities[:, i, j, 0], strict=True):
            axis.imshow(jnp.sqrt(density), origin="lower", cmap="magma")
            axis.set(title=f"{k} x {k} window", xlabel="neighbour bin", ylabel="intensity bin")
    figure.savefig(path, dpi=100)


def draw_damages(path: Path) -> None:
    """Loss, l1 and 1 - SSIM as the damage grows, each as a fraction of its own value at the largest noise."""
    x = photograph()
    measures: dict[str, Callable[[jax.Array], jax.Array]] = {
        "spatial entropy, Hellinger": jax.jit(lambda y: sel.spatial_entropy_loss(y, x)),
        "spatial entropy, relative": jax.jit(lambda y: sel.spatial_entropy_loss(y, x, divergence="relative")),
        "l1": jax.jit(lambda y: jnp.abs(y - x).mean()),
        "1 - SSIM": jax.jit(lambda y: 1 - ssim(y, x)),
    }
    cases = damages(x)
    strengths, _, spoil = cases["noise"]
    unit = {name: float(measure(spoil(strengths[-1]))) for name, measure in measures.items()}
    figure, axes = pyplot.subplots(2, len(cases), figsize=(12, 5.5), layout="constrained")
    for column, (damage, (strengths, label, spoil)) in zip(axes.T, cases.items(), strict=True):
        column[0].imshow(spoil(strengths[len(strengths) // 2]))
        column[0].set_title(damage)
        column[0].axis("off")
        for name, measure in measures.items():
            column[1].plot(strengths, [float(measure(spoil(s))) / unit[name] for s in strengths], label=name)
        column[1].set(xlabel=label, ylim=(0, None))
    axes[1, 0].set_ylabel("against the largest noise")
    axes[1, 0].legend(fontsize="small")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    draw_densities(output / "densities.png")
    draw_damages(output / "damages.png")


if __name__ == "__main__":
    main()
