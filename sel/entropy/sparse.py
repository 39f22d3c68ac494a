"""The same sums as `density.density_sums` on small tiles, visiting only the bins that some pixel of the tile is near.

At bandwidth h = 0.5 a logistic kernel falls by e^2 with each bin, and a pixel's intensity is close to the mean of
its neighbours: of the L^2 bins of a tile most are empty, and more of them the larger L is. The bins (a, b) are
grouped in blocks of one a and 4 b. A block is visited if the pixels of the tile, all together, put more than `_SKIP`
of one pixel's mass there in either image. Everything of a tile fits in the processor's cache. The gradient is
written by hand and computes the densities again.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sel.entropy import density
from sel.entropy.density import Estimator, Field, factored_total, in_order
from sel.entropy.divergence import Divergence
from sel.entropy.neighborhood import centred_sum, centred_sums, crop, reach

# Smaller tiles hold fewer bins but more surroundings; loops over fewer than 32 columns are slow.
_ROWS, _COLUMNS = 16, 32
_BLOCK = 4
_SKIP = 1e-6


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

    def tile(x, corner):
        shape = (1, _ROWS + x.shape[1] - height, _COLUMNS + x.shape[2] - width)
        return lax.dynamic_slice(x, corner, shape)

    def add_tile(i, sums):
        corner = (i // (rows * columns), i // columns % rows * _ROWS, i % columns * _COLUMNS)
        added = compute(*jax.tree.map(lambda x: tile(x, corner)[0], planes), bandwidth[corner[0]])
        return jax.tree.map(lambda x, y: lax.dynamic_update_slice(x, tile(x, corner) + y[None], corner), sums, added)

    return lax.fori_loop(0, n * rows * columns, add_tile, sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _tiled_sums(fields, mask, bandwidth, estimator, divergence):
    def forward(fields, mask, bandwidth):
        return _forward(fields, mask, bandwidth, estimator, divergence)

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
        return _backward(fields, mask, bandwidth, cotangents, estimator, divergence, moved)

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


def _apart(go, compute, *operands):
    """`compute(*operands)` in a branch of its own.

    Compilers do not merge loops across a branch, so that the result is stored once; merged with the window sums that
    read it, it would be computed again for every window: five times slower.
    """
    like = jax.tree.leaves(operands)[0]

    def nothing(*operands):
        shapes = jax.eval_shape(compute, *operands)
        return jax.tree.map(lambda s: lax.full_like(like, 0, s.dtype, s.shape), shapes)

    return lax.cond(go, compute, nothing, *operands)


def _tables(fields, mask, bandwidth, estimator):
    """Weights of the bins of a tile: of a, [l, s, t], 0 outside the mask, and of b, [s, l, t], up to a whole block.

    Bins b stand between rows and columns so that the innermost loops run over the columns of the tile, however small a
    block is.
    """
    first = [estimator.weights(u, bandwidth, axis=0) * mask[None] for u, _ in fields]
    second = [estimator.weights(v, bandwidth, axis=1) for _, v in fields]
    return first, [jnp.pad(r, [(0, 0), (0, -estimator.num_bins % _BLOCK), (0, 0)]) for r in second]


def _worklist(first, second):
    """The blocks (a, j) that hold mass, as two arrays of indices, and how many these are."""
    masses = []
    for p, r in zip(first, second, strict=True):
        rows, _, columns = r.shape
        blocks = r.reshape(rows, -1, _BLOCK, columns).sum(2).swapaxes(0, 1)
        masses.append(p.reshape(p.shape[0], -1) @ blocks.reshape(blocks.shape[0], -1).T)
    live = ~(functools.reduce(jnp.maximum, masses) <= _SKIP)  # a block with NaN is live: it must show
    return jnp.nonzero(live, size=live.size, fill_value=0), live.sum()


def _block(weights, j):
    """Bins `j * _BLOCK` and on."""
    return lax.dynamic_slice_in_dim(weights, j * _BLOCK, _BLOCK, axis=1)


def _block_densities(go, first, second, windows, shares):
    """Joint densities of one block of bins: for each window, a tuple over the images."""

    def row_sums(first, second):
        return [centred_sums(p[:, None] * r, windows, 0) for p, r in zip(first, second, strict=True)]

    images = _apart(go, row_sums, first, second)
    margin = reach(windows)
    return [
        tuple(share * centred_sum(image[i], taps, margin, 2) for image in images)
        for i, (taps, share) in enumerate(zip(windows, shares, strict=True))
    ]


def _inner(first, second, windows):
    """The tables without the surroundings of the tile."""
    margin = reach(windows)
    first = [crop(crop(p, margin, 1), margin, 2) for p in first]
    return first, [crop(crop(r, margin, 0), margin, 2) for r in second]


def _single_total(first, second, windows, divergence):
    first, second = _inner(first, second, windows)
    return factored_total(divergence, first, second, 1)


def _forward(fields, mask, bandwidth, estimator, divergence):
    windows = estimator.joint_windows(divergence)
    shares = [share[:, None] for share in estimator.shares(mask, windows)]
    first, second = _tables(fields, mask, bandwidth, estimator)
    (rows, blocks), live = _worklist(first, second)

    def add_block(i, totals):
        a, j = rows[i], blocks[i]
        densities = _block_densities(i < live, [p[a] for p in first], [_block(r, j) for r in second], windows, shares)
        return tuple(total + divergence.term(*pair) for total, pair in zip(totals, densities, strict=True))

    zeros = tuple(lax.full_like(first[0], 0, shape=(x.shape[0], _BLOCK, x.shape[2])) for x in shares)
    totals = [total.sum(1) for total in lax.fori_loop(0, live, add_block, zeros)] if windows else []
    single = _single_total(first, second, windows, divergence) if len(windows) < len(estimator.windows) else None
    return in_order(estimator.windows, windows, totals, single)


def _backward(fields, mask, bandwidth, cotangents, estimator, divergence, moved):
    """Gradients by u and v of the images in `moved`."""
    windows = estimator.joint_windows(divergence)
    by_size = {len(taps): cotangent for taps, cotangent in zip(estimator.windows, cotangents, strict=True)}
    tables = functools.partial(_tables, mask=mask, bandwidth=bandwidth, estimator=estimator)
    (first, second), (first_slopes, second_slopes) = jax.jvp(tables, (fields,), (jax.tree.map(jnp.ones_like, fields),))
    by_u, by_v = [jnp.zeros_like(p) for p in first], [jnp.zeros_like(r) for r in second]
    if len(windows) < len(estimator.windows):
        _, pullback = jax.vjp(lambda p, r: _single_total(p, r, windows, divergence), first, second)
        by_u, by_v = pullback(by_size[1])
    gradients = [
        [(p * g).sum(0), (r * h).sum(1)] for p, g, r, h in zip(first_slopes, by_u, second_slopes, by_v, strict=True)
    ]
    gradients = [gradients[m] for m in moved]
    if not windows:
        return gradients
    scales = [share * by_size[len(taps)] for taps, share in zip(windows, estimator.shares(mask, windows), strict=True)]
    joint = _joint_gradients(first, second, first_slopes, second_slopes, mask, scales, estimator, divergence, moved)
    return jax.tree.map(jnp.add, gradients, joint)


def _joint_gradients(first, second, first_slopes, second_slopes, mask, scales, estimator, divergence, moved):
    """The part of the gradients that comes through joint densities.

    With the slopes of all windows that a pixel is in gathered as G_ab, du = sum_ab p_a' r_b G_ab and dv = sum_ab p_a
    r_b' G_ab.
    """
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    shares = [share[:, None] for share in estimator.shares(mask, windows)]
    scales = [scale[:, None] for scale in scales]
    (rows, blocks), live = _worklist(first, second)

    def slopes(densities):
        by_window = [
            [scale * slope for slope in divergence.slopes(*pair)] for scale, pair in zip(scales, densities, strict=True)
        ]
        around = (2 * margin, 2 * margin)
        return [[jnp.pad(window[m], [around, (0, 0), around]) for window in by_window] for m in moved]

    def row_sums(padded):
        return [[centred_sum(g, taps, margin, 0) for taps, g in zip(windows, image, strict=True)] for image in padded]

    def column_sums(images):
        return [
            sum(centred_sum(g, taps, margin, 2) for taps, g in zip(windows, image, strict=True)) for image in images
        ]

    def add_block(i, sums):
        a, j, go = rows[i], blocks[i], i < live
        densities = _block_densities(go, [p[a] for p in first], [_block(r, j) for r in second], windows, shares)
        gathered = _apart(go, column_sums, _apart(go, row_sums, _apart(go, slopes, densities)))
        added = []
        for m, g, (by_u, by_v) in zip(moved, gathered, sums, strict=True):
            by_u += first_slopes[m][a] * (_block(second[m], j) * g).sum(1)
            by_v += first[m][a] * (_block(second_slopes[m], j) * g).sum(1)
            added.append([by_u, by_v])
        return added

    zeros = [[jnp.zeros_like(first[m][0]), jnp.zeros_like(first[m][0])] for m in moved]
    return lax.fori_loop(0, live, add_block, zeros)
