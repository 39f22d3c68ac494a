"""The weights of the bins for a group of tiles, the blocks of bins that hold mass, and windows of one pixel.

Bins are grouped in blocks of `BLOCK`. A table is [block, bin, pixel], where the pixels of all tiles of the group,
[g, s, t], stand in one row: compilers make vector instructions of long rows, and scalar ones of rows as short as a tile
is wide. Sums over bins are spelled out as additions: XLA on CPU hands `sum` to a library that takes several times as
long.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from sel.entropy import density
from sel.entropy.neighborhood import add_up, crop

# Larger blocks hold more bins without mass, and XLA on CPU would divide them among threads, which takes longer.
BLOCK = 4
# With 1e-5 Hellinger gradients of natural images are as near to those of float64 (1.4e-6 in the mean square), in 7 %
# less time, but the logarithm of cross entropy magnifies what is left out: 2e-4 of a gradient.
_SKIP = 1e-6
# Bins that are added up in one instruction of the compiled program.
_SUMMED = 32


def _add_bins(weights, _):
    """The sum over the first axis, `_SUMMED` bins at a time."""
    rest = len(weights) % _SUMMED or _SUMMED
    total = add_up(weights[:rest])
    if len(weights) <= _SUMMED:
        return total
    table = weights[rest:].reshape(-1, _SUMMED, weights.shape[-1])
    return lax.fori_loop(
        0, len(table), lambda i, total: total + add_up(lax.dynamic_index_in_dim(table, i, keepdims=False)), total
    )


def make(fields, mask, bandwidth, estimator):
    """For each image, weights of the bins a, 0 outside the mask, and of the bins b."""
    widths = jnp.repeat(bandwidth, mask[0].size)[None]

    def weights(x):
        return estimator.weights(x.ravel(), widths, 0, _add_bins)

    def blocks(weights):
        padded = jnp.pad(weights, [(0, -estimator.num_bins % BLOCK), (0, 0)])
        return padded.reshape(-1, BLOCK, padded.shape[-1])

    first = [blocks(weights(u) * mask.reshape(1, -1)) for u, _ in fields]
    return first, [blocks(weights(v)) for _, v in fields]


def worklist(first, second, group: int) -> tuple[Array, Array, Array]:
    """For each tile: the blocks (i, j) of a and b that hold mass, as two arrays of indices, and how many these are."""

    def by_tile(table):
        blocks = add_up(table[:, k] for k in range(BLOCK))
        return jnp.moveaxis(blocks.reshape(table.shape[0], group, -1), 1, 0)

    masses = [jnp.matmul(by_tile(p), jnp.matrix_transpose(by_tile(r))) for p, r in zip(first, second, strict=True)]
    live = ~(functools.reduce(jnp.maximum, masses) <= _SKIP)  # a block with NaN is live: it must show
    found = functools.partial(jnp.nonzero, size=live[0].size, fill_value=0)
    rows, columns = jax.vmap(found)(live)
    return rows, columns, live.sum((1, 2))


def scales(table, group: int):
    """For each block, bin and tile, the scale of the weights (`density.largest`)."""
    return density.largest(table.reshape(*table.shape[:2], group, -1), (-1,))


def scale_of(table, i, tile, axis: int):
    """Scales of block i for one tile, along the first or the second axis of [bin, bin, pixel]."""
    found = lax.dynamic_slice(table, (i, 0, tile), (1, BLOCK, 1))
    return found.reshape((BLOCK, 1, 1) if axis == 0 else (1, BLOCK, 1))


def chosen(table, i, tile, pixels: int):
    """Weights of block i for the pixels of one tile."""
    return lax.dynamic_slice(table, (i, 0, tile * pixels), (1, BLOCK, pixels))[0]


def dot(x, y):
    """sum_k x_k y_k over the bins of a block."""
    return add_up(x[k] * y[k] for k in range(BLOCK))


def _over_blocks(add_block, count: int, zeros):
    """Add up what `add_block` makes of each block of bins, given how to look a table up."""

    def step(i, sums):
        added = add_block(lambda table: lax.dynamic_index_in_dim(table, i, keepdims=False))
        return jax.tree.map(jnp.add, sums, added)

    return lax.fori_loop(0, count, step, zeros)


def _factor_totals(tables, divergence):
    """For a 1 x 1 window, where P_ab = p_a r_b: the sums over the bins of either factor that `combine` takes."""

    def add_block(look_up):
        terms = [divergence.term(*map(look_up, factors)) for factors in tables]
        return [add_up(term[k] for k in range(BLOCK)) for term in terms]

    zeros = [jnp.zeros_like(factors[0][0, 0]) for factors in tables]
    return _over_blocks(add_block, tables[0][0].shape[0], zeros)


def single_total(tables, shape, margin: int, divergence):
    """sum_ab term(P_ab, Q_ab) for a 1 x 1 window at every pixel of the tiles without their surroundings."""
    total = divergence.combine(*_factor_totals(tables, divergence)).reshape(shape)
    return crop(crop(total, margin, 1), margin, 2)


def single_gradients(tables, slopes, margin: int, cotangent, divergence, moved):
    """Gradients of `single_total` by u and v, for each image moved; `slopes` are derivatives of the tables."""
    cotangent = jnp.pad(cotangent, [(0, 0), (margin, margin), (margin, margin)]).ravel()
    _, pullback = jax.vjp(divergence.combine, *_factor_totals(tables, divergence))
    scales = pullback(cotangent)

    def add_block(look_up):
        by_factor = [divergence.slopes(*map(look_up, factors)) for factors in tables]
        return [
            [dot(look_up(field[m]), slope[m]) for field, slope in zip(slopes, by_factor, strict=True)] for m in moved
        ]

    zeros = [[jnp.zeros_like(field[m][0, 0]) for field in slopes] for m in moved]
    sums = _over_blocks(add_block, tables[0][0].shape[0], zeros)
    return [[scale * total for scale, total in zip(scales, pair, strict=True)] for pair in sums]
