"""The same sums as `density.density_sums` on small tiles, visiting only the bins that some pixel of the tile is near.

`sel.entropy.tile` computes a group of tiles, side by side on several threads of a CPU, each of which fits in a core's
cache. Here images are cut into tiles and their results put together, and JAX is told that the gradient is one that is
written by hand and computes the densities again.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sel.entropy import density, tile
from sel.entropy.density import Estimator, Field
from sel.entropy.divergence import Divergence
from sel.entropy.loops import group_size
from sel.entropy.neighborhood import crop, reach

# Smaller tiles hold fewer bins but more surroundings; larger ones leave the processor's cache.
_ROWS, _COLUMNS = 16, 16


def density_sums(
    fields: tuple[Field, ...],
    mask: Float[Array, "n h w"],
    bandwidth: Float[Array, " n"],
    *,
    estimator: Estimator,
    divergence: Divergence,
) -> tuple[Float[Array, "n h w"], ...]:
    """sum_ab term(P_ab, Q_ab) at every pixel, for every window; see `density.density_sums`."""
    _, h, w = mask.shape
    margin = reach(estimator.joint_windows(divergence))
    # h + (-h % _ROWS), in a form in which `jax.export` sees of symbolic sides that it is at least _ROWS
    height, width = (h + _ROWS - 1) // _ROWS * _ROWS, (w + _COLUMNS - 1) // _COLUMNS * _COLUMNS
    around = [(0, 0), (margin, margin + height - h), (margin, margin + width - w)]
    fields, mask = jax.tree.map(lambda x: jnp.pad(x, around), (fields, mask))
    try:
        sums = _tiled_sums(fields, mask, bandwidth, estimator, divergence)
    except TypeError as error:
        error.add_note("For forward-mode derivatives of the spatial entropy take implementation='dense'.")
        raise
    return jax.tree.map(lambda x: x[:, :h, :w], sums)


def _over_tiles(compute, make_buffers, planes, bandwidth, sums, margin):
    """Add up what `compute` makes of every tile: `planes` are read, and `sums` added to, where the tile is.

    Planes and sums have the surroundings of their tiles, `margin` pixels, on all sides or not at all. A group of tiles
    is cut out at a time: beside the planes, memory is needed for one group alone. It works in buffers that are made
    once, by `make_buffers` for planes like those of a group.
    """
    n, height, width = planes[1].shape
    height, width = height - 2 * margin, width - 2 * margin
    rows, columns = height // _ROWS, width // _COLUMNS
    count = n * rows * columns
    size = group_size(count)

    def corner(i):
        return i // (rows * columns), i // columns % rows * _ROWS, i % columns * _COLUMNS

    def cut(x, i):
        shape = (1, _ROWS + x.shape[1] - height, _COLUMNS + x.shape[2] - width)
        return lax.dynamic_slice(x, corner(i), shape)

    def add_group(j, carry):
        sums, buffers = carry
        tiles = jnp.minimum(j * size + jnp.arange(size), count - 1)  # what is too much of the last group is not added
        group = lax.map(lambda i: jax.tree.map(lambda x: cut(x, i)[0], planes), tiles)
        added, buffers = compute(*group, bandwidth[corner(tiles)[0]], buffers)

        def add_tile(k, sums):
            def add(x, y):
                i = j * size + k
                return lax.dynamic_update_slice(x, cut(x, i) + lax.dynamic_index_in_dim(y, k), corner(i))

            return jax.tree.map(add, sums, added)

        return lax.fori_loop(0, jnp.minimum(size, count - j * size), add_tile, sums), buffers

    like = jnp.zeros_like(cut(planes[1], 0), shape=(size, *cut(planes[1], 0).shape[1:]))
    return lax.fori_loop(0, -(-count // size), add_group, (sums, make_buffers(like)))[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _tiled_values(fields, mask, bandwidth, estimator, divergence):
    def forward(fields, mask, bandwidth, buffers):
        return tile.forward(fields, mask, bandwidth, buffers, estimator, divergence)

    def buffers(like):
        return tile.forward_buffers(like, len(fields), estimator, divergence)

    margin = reach(estimator.joint_windows(divergence))
    zeros = jnp.zeros_like(crop(crop(fields[0][0], margin, 1), margin, 2))
    return _over_tiles(forward, buffers, (fields, mask), bandwidth, (zeros,) * len(estimator.windows), margin)


@_tiled_values.defjvp
def _tiled_values_jvp(estimator, divergence, primals, tangents):
    """Only within a gradient that is differentiated itself: forward mode alone stops at `_tiled_sums`."""
    fields, mask, bandwidth = primals
    sums = functools.partial(_plain_sums, mask, bandwidth, estimator, divergence)
    return _tiled_values(*primals, estimator, divergence), jax.jvp(sums, (fields,), tangents[:1])[1]


def _plain_sums(mask, bandwidth, estimator, divergence, fields):
    """What `_tiled_values` gives, by the plain algorithm."""
    margin = reach(estimator.joint_windows(divergence))
    totals = density.density_sums(fields, mask, bandwidth, estimator=estimator, divergence=divergence)
    return tuple(crop(crop(total, margin, 1), margin, 2) for total in totals)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _tiled_sums(fields, mask, bandwidth, estimator, divergence):
    return _tiled_values(fields, mask, bandwidth, estimator, divergence)


def _tiled_sums_fwd(fields, mask, bandwidth, estimator, divergence):
    fields, wanted = _values(fields)
    mask, bandwidth = mask.value, bandwidth.value
    return _tiled_values(fields, mask, bandwidth, estimator, divergence), (fields, wanted, mask, bandwidth)


def _values(fields):
    """Plain arrays of the marked arguments of a custom_vjp, and the marks (is a gradient asked for?) without leaves."""
    values = jax.tree.map(lambda x: x.value, fields, is_leaf=lambda x: hasattr(x, "perturbed"))
    return values, tuple(() if u.perturbed or v.perturbed else None for u, v in fields)


def _tiled_sums_bwd(estimator, divergence, residuals, cotangents):
    fields, wanted, mask, bandwidth = residuals
    cotangents = tuple(
        jnp.zeros(c.shape, c.dtype) if isinstance(c, jax.custom_derivatives.SymbolicZero) else c for c in cotangents
    )
    moved = tuple(i for i, mark in enumerate(wanted) if mark is not None)
    gradients = dict(
        zip(moved, _gradients(fields, mask, bandwidth, cotangents, estimator, divergence, moved), strict=True)
    )
    return tuple(tuple(gradients.get(i, (None, None))) for i in range(len(fields))), None, None


_tiled_sums.defvjp(_tiled_sums_fwd, _tiled_sums_bwd, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def _gradients(fields, mask, bandwidth, cotangents, estimator, divergence, moved):
    def backward(fields, mask, cotangents, bandwidth, buffers):
        return tile.backward(fields, mask, bandwidth, cotangents, buffers, estimator, divergence, moved)

    def buffers(like):
        return tile.backward_buffers(like, len(fields), estimator, divergence, len(moved))

    margin = reach(estimator.joint_windows(divergence))
    zeros = [[jnp.zeros_like(u), jnp.zeros_like(v)] for u, v in fields[: len(moved)]]
    return _over_tiles(backward, buffers, (fields, mask, cotangents), bandwidth, zeros, margin)


@_gradients.defjvp
def _gradients_jvp(estimator, divergence, moved, primals, tangents):
    """Second derivatives go through the plain algorithm."""
    fields, mask, bandwidth, cotangents = primals
    sums = functools.partial(_plain_sums, mask, bandwidth, estimator, divergence)

    def dense_gradients(fields, cotangents):
        (gradients,) = jax.vjp(sums, fields)[1](cotangents)
        return [list(gradients[m]) for m in moved]

    _, tangent = jax.jvp(dense_gradients, (fields, cotangents), (tangents[0], tangents[3]))
    return _gradients(*primals, estimator, divergence, moved), tangent
