"""What lies around a pixel: the mean of its eight neighbours, and sums over square windows.

Image planes have shape `[..., h, w]` here: one channel of one image, rows and columns last.
"""

import functools
from collections.abc import Iterable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Row and column offsets of the eight neighbours, with their place in a 3 x 3 weight matrix.
_NEIGHBORS = tuple((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))


def _add(terms: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def clip(x: Float[Array, "..."], low, high) -> Float[Array, "..."]:
    """`jnp.clip` with gradient 1 on the ends too, where a black or white pixel must still be able to move inwards."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def neighbor_sum(planes: Float[Array, "*n h w"], weights: Float[Array, "3 3"]) -> Float[Array, "*n h w"]:
    """sum_r w_r x(q + r) over the eight neighbours r, with zeros outside the image."""
    h, w = planes.shape[-2:]
    padded = pad_planes(planes, 1)
    return _add(weights[i, j] * padded[..., i : i + h, j : j + w] for i, j in _NEIGHBORS)


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


def centred_sum(x: Float[Array, "..."], size: int, reach: int, axis: int) -> Float[Array, "..."]:
    """Sums over windows of `size` along `axis`, where a window of reach `reach` fits: `2 reach` fewer."""
    n = x.shape[axis] - 2 * reach
    first = reach - size // 2
    return _add(lax.slice_in_dim(x, first + i, first + i + n, axis=axis) for i in range(size))


def centred_sums(x: Float[Array, "..."], sizes: tuple[int, ...], axis: int) -> tuple[Float[Array, "..."], ...]:
    """`centred_sum` for every size, each window grown from the one before: 5 is 3 and the two beside it."""
    reach = max(sizes) // 2
    n = x.shape[axis] - 2 * reach
    total = lax.slice_in_dim(x, reach, reach + n, axis=axis)
    sums = {1: total}
    for r in range(1, reach + 1):
        before = lax.slice_in_dim(x, reach - r, reach - r + n, axis=axis)
        after = lax.slice_in_dim(x, reach + r, reach + r + n, axis=axis)
        total = total + before + after
        sums[2 * r + 1] = total
    return tuple(sums[k] for k in sizes)


def window_sums(
    x: Float[Array, "..."], sizes: tuple[int, ...], axes: tuple[int, int]
) -> tuple[Float[Array, "..."], ...]:
    """Sums over square windows along two axes, which get `max(sizes) - 1` shorter."""
    reach = max(sizes) // 2
    rows = centred_sums(x, sizes, axes[1])
    return tuple(centred_sum(row, k, reach, axes[0]) for row, k in zip(rows, sizes, strict=True))


def crop(x: Float[Array, "..."], margin: int, axis: int) -> Float[Array, "..."]:
    """Drop `margin` slices at both ends of an axis."""
    return lax.slice_in_dim(x, margin, x.shape[axis] - margin, axis=axis)


def pad_planes(x: Float[Array, "*n h w"], margin: int) -> Float[Array, "*n s t"]:
    """Zeros around the last two axes."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(margin, margin)] * 2)
