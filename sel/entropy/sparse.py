"""The same sums as `density.density_sums` on small tiles, visiting only the bins that some pixel of the tile is near.

`sel.entropy.tile` computes one tile, which fits in the processor's cache. Here images are cut into tiles and their
results put together, and JAX is told that the gradient is one that is written by hand and computes the densities
again.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sel.entropy import density, tile
from sel.entropy.density import Estimator, Field
from sel.entropy.divergence import Divergence
from sel.entropy.neighborhood import crop, reach

# Smaller tiles hold fewer bins but more surroundings; larger ones leave the processor's cache.
_ROWS, _COLUMNS = 16, 32


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
    around = [(0, 0), (margin, margin + -h % _ROWS), (margin, margin + -w % _COLUMNS)]
    fields, mask = jax.tree.map(lambda x: jnp.pad(x, around), (fields, mask))
    try:
        sums = _tiled_sums(fields, mask, bandwidth, estimator, divergence)
    except TypeError as error:
        error.add_note("For forward-mode derivatives of the spatial entropy take implementation='dense'.")
        raise
    return jax.tree.map(lambda x: x[:, :h, :w], sums)


def _over_tiles(compute, planes, bandwidth, sums, margin):
    """Add up what `compute` makes of every tile: `planes` are read, and `sums` added to, where the tile is.

    Planes and sums have the surroundings of their tiles, `margin` pixels, on all sides or not at all. Tiles are cut
    out one by one: beside the planes, memory is needed for one tile alone.
    """
    n, height, width = planes[1].shape
    height, width = height - 2 * margin, width - 2 * margin
    rows, columns = height // _ROWS, width // _COLUMNS

    def cut(x, corner):
        shape = (1, _ROWS + x.shape[1] - height, _COLUMNS + x.shape[2] - width)
        return lax.dynamic_slice(x, corner, shape)

    def add_tile(i, sums):
        corner = (i // (rows * columns), i // columns % rows * _ROWS, i % columns * _COLUMNS)
        added = compute(*jax.tree.map(lambda x: cut(x, corner)[0], planes), bandwidth[corner[0]])
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice(x, cut(x, corner) + y[None], corner), sums, added)

    return lax.fori_loop(0, n * rows * columns, add_tile, sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _tiled_sums(fields, mask, bandwidth, estimator, divergence):
    def forward(fields, mask, bandwidth):
        return tile.forward(fields, mask, bandwidth, estimator, divergence)

    margin = reach(estimator.joint_windows(divergence))
    zeros = jnp.zeros_like(crop(crop(fields[0][0], margin, 1), margin, 2))
    return _over_tiles(forward, (fields, mask), bandwidth, (zeros,) * len(estimator.windows), margin)


def _tiled_sums_fwd(fields, mask, bandwidth, estimator, divergence):
    fields, wanted = _values(fields)
    mask, bandwidth = mask.value, bandwidth.value
    return _tiled_sums(fields, mask, bandwidth, estimator, divergence), (fields, wanted, mask, bandwidth)


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
    def backward(fields, mask, cotangents, bandwidth):
        return tile.backward(fields, mask, bandwidth, cotangents, estimator, divergence, moved)

    margin = reach(estimator.joint_windows(divergence))
    zeros = [[jnp.zeros_like(u), jnp.zeros_like(v)] for u, v in fields[: len(moved)]]
    return _over_tiles(backward, (fields, mask, cotangents), bandwidth, zeros, margin)


@_gradients.defjvp
def _gradients_jvp(estimator, divergence, moved, primals, tangents):
    """Second derivatives go through the plain algorithm."""
    fields, mask, bandwidth, cotangents = primals
    margin = reach(estimator.joint_windows(divergence))

    def sums(fields):
        totals = density.density_sums(fields, mask, bandwidth, estimator=estimator, divergence=divergence)
        return tuple(crop(crop(total, margin, 1), margin, 2) for total in totals)

    def dense_gradients(fields, cotangents):
        (gradients,) = jax.vjp(sums, fields)[1](cotangents)
        return [list(gradients[m]) for m in moved]

    _, tangent = jax.jvp(dense_gradients, (fields, cotangents), (tangents[0], tangents[3]))
    return _gradients(*primals, estimator, divergence, moved), tangent
