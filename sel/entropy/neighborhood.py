"""What lies around a pixel: the mean of its eight neighbours, and sums over square windows.

Image planes have shape `[..., h, w]` here: one channel of one image, rows and columns last.
"""

import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

DISTRIBUTIONS = ("dirichlet", "normal")

# Weights along one side of a window: its size is their number.
Window = tuple[float, ...]

# Row and column offsets of the eight neighbours, with their place in a 3 x 3 weight matrix.
_NEIGHBORS = tuple((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))


def add_up(terms: Iterable[Array]) -> Array:
    """`sum` without its 0 to start from."""
    return functools.reduce(jnp.add, terms)


def absolute(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Absolute value with slope 0, not 1, at 0."""
    return x * jnp.sign(x)


def clip(x: Float[Array, "..."], low, high) -> Float[Array, "..."]:
    """`jnp.clip` with gradient 1 on the ends too, where a black or white pixel must still be able to move inwards."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def neighbor_sum(planes: Float[Array, "*n h w"], weights: Float[Array, "3 3"]) -> Float[Array, "*n h w"]:
    """sum_r w_r x(q + r) over the eight neighbours r, with zeros outside the image."""
    h, w = planes.shape[-2:]
    padded = pad_planes(planes, 1)
    return add_up(weights[i, j] * padded[..., i : i + h, j : j + w] for i, j in _NEIGHBORS)


def neighbor_mean(
    planes: Float[Array, "*n h w"], mask: Float[Array, "*n h w"], weights: Float[Array, "3 3"]
) -> Float[Array, "*n h w"]:
    """v(q) = sum_r w_r x(q + r) / sum_r w_r over the neighbours in the image and the mask; x(q) where there are none.

    The published code divides by the weights summed over all channels (so that an RGB mean is a third of the true
    one) and counts the pixels beyond the border as zeros.
    """
    total = neighbor_sum(mask, weights)
    alone = total <= 0
    return jnp.where(alone, planes, neighbor_sum(planes * mask, weights) / jnp.where(alone, 1, total))


def sample_neighbor_weights(key: PRNGKeyArray, distribution: str = "dirichlet") -> Float[Array, "3 3"]:
    """Random weights of the eight neighbours, 0 in the centre, that sum to 1.

    Args:
      key: random key.
      distribution: `dirichlet`, uniform over non-negative weights; or `normal`, as published: N(0, 1) divided by the
        sum, which is near 0 now and then, so that the gain is above 10 in 17 % of the draws.

    Returns:
      Weights for `neighbor_weights` of `spatial_entropy_loss`.

    Raises:
      ValueError: if there is no such distribution.

    Examples:
      >>> import jax
      >>> import sel
      >>> weights = sel.sample_neighbor_weights(jax.random.key(0))
      >>> weights.shape, float(weights[1, 1]), round(float(weights.sum()), 4)
      ((3, 3), 0.0, 1.0)
    """
    if distribution == "dirichlet":
        weights = jax.random.dirichlet(key, jnp.ones(8))
    elif distribution == "normal":
        weights = jax.random.normal(key, (8,))
        weights = weights / weights.sum()
    else:
        raise ValueError(f"distribution must be one of dirichlet, normal, found {distribution!r}")
    rows, columns = zip(*_NEIGHBORS, strict=True)
    return jnp.zeros((3, 3)).at[rows, columns].set(weights)


def blur(images: Float[Array, "*batch h w c"], sigma: float) -> Float[Array, "*batch h w c"]:
    """Gaussian blur with standard deviation `sigma` pixels, over the pixels inside the image."""
    radius = math.ceil(3 * sigma)
    taps = tuple(math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1))
    for axis in (-3, -2):
        around = [(0, 0)] * images.ndim
        around[axis] = (radius, radius)
        total = centred_sum(jnp.pad(jnp.ones_like(images), around), taps, radius, axis)
        images = centred_sum(jnp.pad(images, around), taps, radius, axis) / total
    return images


def window_taps(size: int, shape: str) -> Window:
    """Weights along one side of a `box` window, or of a `gaussian` one with a standard deviation of a quarter of it."""
    if shape == "box":
        return (1.0,) * size
    return tuple(math.exp(-0.5 * (4 * (i - size // 2) / size) ** 2) for i in range(size))


def reach(windows: tuple[Window, ...]) -> int:
    """How far the largest window sees beyond its centre."""
    return max((len(taps) for taps in windows), default=1) // 2


def centred_sum(x: Float[Array, "..."], taps: Window, margin: int, axis: int, stride: int = 1) -> Float[Array, "..."]:
    """Weighted sums over windows along `axis`, where one of reach `margin` fits: `2 margin` fewer.

    With planes in one row, `stride` is their width for windows over rows.
    """
    n = x.shape[axis] - 2 * margin * stride
    first = margin - len(taps) // 2
    starts = ((first + i) * stride for i in range(len(taps)))
    slices = (lax.slice_in_dim(x, start, start + n, axis=axis) for start in starts)
    return add_up(part if tap == 1 else tap * part for tap, part in zip(taps, slices, strict=True))


def centred_sums(
    x: Float[Array, "..."], windows: tuple[Window, ...], axis: int, stride: int = 1
) -> tuple[Float[Array, "..."], ...]:
    """`centred_sum` for every window; boxes grow one from another: 5 is 3 and the two beside it."""
    margin = reach(windows)
    if any(tap != 1 for taps in windows for tap in taps):
        return tuple(centred_sum(x, taps, margin, axis, stride) for taps in windows)
    n = x.shape[axis] - 2 * margin * stride

    def shifted(i):
        return lax.slice_in_dim(x, (margin + i) * stride, (margin + i) * stride + n, axis=axis)

    total = shifted(0)
    sums = {1: total}
    for r in range(1, margin + 1):
        total = total + shifted(-r) + shifted(r)
        sums[2 * r + 1] = total
    return tuple(sums[len(taps)] for taps in windows)


def window_sums(
    x: Float[Array, "..."], windows: tuple[Window, ...], axes: tuple[int, int]
) -> tuple[Float[Array, "..."], ...]:
    """Sums over square windows along two axes, which get shorter by twice the reach of the largest."""
    rows = centred_sums(x, windows, axes[1])
    return tuple(centred_sum(row, taps, reach(windows), axes[0]) for row, taps in zip(rows, windows, strict=True))


def crop(x: Float[Array, "..."], margin: int, axis: int) -> Float[Array, "..."]:
    """Drop `margin` slices at both ends of an axis."""
    return lax.slice_in_dim(x, margin, x.shape[axis] - margin, axis=axis)


def pad_planes(x: Float[Array, "*n h w"], margin: int) -> Float[Array, "*n s t"]:
    """Zeros around the last two axes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(margin, margin)] * 2)
