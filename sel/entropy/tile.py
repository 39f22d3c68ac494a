"""One tile of an image: sums over the bins (a, b) that its pixels are near, and the gradients of these sums.

At bandwidth h = 0.5 a logistic kernel falls by e^2 with each bin, and a pixel's intensity is close to the mean of
its neighbours: of the L^2 bins of a tile most are empty, and more of them the larger L is. The bins are grouped in
blocks of one a and 4 b. A block is visited if the pixels of the tile, all together, put more than `_SKIP` of one
pixel's mass there in either image.

Arguments are planes [s, t] of a tile with its surroundings. Inside, a plane is one row of n = s t pixels, in which the
pixel below is `stride` = t further: compilers make vector instructions of long rows, and scalar ones of rows as short
as a tile is wide. Window sums over columns then reach from one line into the next, but only at pixels of the
surroundings, which are given weight 0.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sel.entropy.density import factored_total, in_order
from sel.entropy.neighborhood import centred_sum, centred_sums, crop, reach

_BLOCK = 4
# With 1e-5 Hellinger gradients of natural images are as near to those of float64 (1.4e-6 in the mean square), in 7 %
# less time, but the logarithm of cross entropy magnifies what is left out: 2e-4 of a gradient.
_SKIP = 1e-6


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
    """Weights of the bins of a tile: of a, [l, n], 0 outside the mask, and of b in blocks, [j, b, n]."""

    def flat(weights):
        return weights.reshape(weights.shape[0], -1)

    first = [flat(estimator.weights(u, bandwidth, axis=0) * mask[None]) for u, _ in fields]
    second = [flat(estimator.weights(v, bandwidth, axis=0)) for _, v in fields]
    padded = [jnp.pad(r, [(0, -estimator.num_bins % _BLOCK), (0, 0)]) for r in second]
    return first, [r.reshape(-1, _BLOCK, r.shape[-1]) for r in padded]


def _worklist(first, second):
    """The blocks (a, j) that hold mass, as two arrays of indices, and how many these are."""
    masses = [p @ r.sum(1).T for p, r in zip(first, second, strict=True)]
    live = ~(functools.reduce(jnp.maximum, masses) <= _SKIP)  # a block with NaN is live: it must show
    return jnp.nonzero(live, size=live.size, fill_value=0), live.sum()


def _block(second, j):
    """Block j of a table, [b n], still one row so that it is copied fast."""
    return lax.dynamic_index_in_dim(second.reshape(second.shape[0], -1), j, keepdims=False)


def _to_row(plane, margin):
    """A plane of the tile without surroundings as window sums come: in one row, 0 where windows leave a line."""
    row = jnp.pad(plane, [(0, 0), (margin, margin)]).reshape(1, -1)
    return crop(row, margin, 1)


def _to_plane(row, margin, stride):
    """The inverse of `_to_row`."""
    return crop(jnp.pad(row, margin).reshape(-1, stride), margin, 1)


def _block_densities(go, first, second, windows, shares, stride):
    """Joint densities of one block of bins: for each window, a tuple over the images."""

    def row_sums(first, second):
        return [
            centred_sums(p[None] * r.reshape(_BLOCK, -1), windows, 1, stride)
            for p, r in zip(first, second, strict=True)
        ]

    images = _apart(go, row_sums, first, second)
    margin = reach(windows)
    return [
        tuple(share * centred_sum(image[i], taps, margin, 1) for image in images)
        for i, (taps, share) in enumerate(zip(windows, shares, strict=True))
    ]


def _single_total(first, second, margin, stride, divergence):
    total = factored_total(divergence, first, second, (0, 1)).reshape(-1, stride)
    return crop(crop(total, margin, 0), margin, 1)


def forward(fields, mask, bandwidth, estimator, divergence):
    """sum_ab term(P_ab, Q_ab) at every pixel of the tile without its surroundings, for every window."""
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    stride = mask.shape[1]
    shares = [_to_row(share, margin) for share in estimator.shares(mask, windows)]
    first, second = _tables(fields, mask, bandwidth, estimator)
    (rows, blocks), live = _worklist(first, second)

    def add_block(i, totals):
        a, j = rows[i], blocks[i]
        chosen = [p[a] for p in first], [_block(r, j) for r in second]
        densities = _block_densities(i < live, *chosen, windows, shares, stride)
        return tuple(total + divergence.term(*pair) for total, pair in zip(totals, densities, strict=True))

    zeros = tuple(lax.full_like(first[0], 0, shape=(_BLOCK, x.size)) for x in shares)
    totals = lax.fori_loop(0, live, add_block, zeros) if windows else ()
    totals = [_to_plane(total.sum(0), margin, stride) for total in totals]
    single = _single_total(first, second, margin, stride, divergence) if len(windows) < len(estimator.windows) else None
    return in_order(estimator.windows, windows, totals, single)


def backward(fields, mask, bandwidth, cotangents, estimator, divergence, moved):
    """Gradients of the sums by u and v of the images in `moved`, at every pixel with the surroundings."""
    windows = estimator.joint_windows(divergence)
    by_size = {len(taps): cotangent for taps, cotangent in zip(estimator.windows, cotangents, strict=True)}
    tables = functools.partial(_tables, mask=mask, bandwidth=bandwidth, estimator=estimator)
    (first, second), (first_slopes, second_slopes) = jax.jvp(tables, (fields,), (jax.tree.map(jnp.ones_like, fields),))
    by_u, by_v = [jnp.zeros_like(p) for p in first], [jnp.zeros_like(r) for r in second]
    if len(windows) < len(estimator.windows):
        single_total = functools.partial(
            _single_total, margin=reach(windows), stride=mask.shape[1], divergence=divergence
        )
        _, pullback = jax.vjp(single_total, first, second)
        by_u, by_v = pullback(by_size[1])
    gradients = [
        [(p * g).sum(0), (r * h).sum((0, 1))]
        for p, g, r, h in zip(first_slopes, by_u, second_slopes, by_v, strict=True)
    ]
    gradients = [gradients[m] for m in moved]
    if windows:
        scales = [
            share * by_size[len(taps)] for taps, share in zip(windows, estimator.shares(mask, windows), strict=True)
        ]
        joint = _joint_gradients(first, second, first_slopes, second_slopes, mask, scales, estimator, divergence, moved)
        gradients = jax.tree.map(jnp.add, gradients, joint)
    return jax.tree.map(lambda g: g.reshape(mask.shape), gradients)


def _joint_gradients(first, second, first_slopes, second_slopes, mask, scales, estimator, divergence, moved):
    """The part of the gradients that comes through joint densities.

    With the slopes of all windows that a pixel is in gathered as G_ab, du = sum_ab p_a' r_b G_ab and dv = sum_ab p_a
    r_b' G_ab.
    """
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    stride = mask.shape[1]
    shares = [_to_row(share, margin) for share in estimator.shares(mask, windows)]
    scales = [_to_row(scale, margin) for scale in scales]
    (rows, blocks), live = _worklist(first, second)

    def slopes(densities):
        by_window = [
            [scale * slope for slope in divergence.slopes(*pair)] for scale, pair in zip(scales, densities, strict=True)
        ]
        around = 2 * margin * (stride + 1)
        return [[jnp.pad(window[m], [(0, 0), (around, around)]) for window in by_window] for m in moved]

    def row_sums(padded):
        return [
            [centred_sum(g, taps, margin, 1, stride) for taps, g in zip(windows, image, strict=True)]
            for image in padded
        ]

    def column_sums(images):
        return [
            sum(centred_sum(g, taps, margin, 1) for taps, g in zip(windows, image, strict=True)) for image in images
        ]

    def add_block(i, sums):
        a, j, go = rows[i], blocks[i], i < live
        chosen = [p[a] for p in first], [_block(r, j) for r in second]
        densities = _block_densities(go, *chosen, windows, shares, stride)
        gathered = _apart(go, column_sums, _apart(go, row_sums, _apart(go, slopes, densities)))
        added = []
        for m, g, (by_u, by_v) in zip(moved, gathered, sums, strict=True):
            by_u += first_slopes[m][a] * (_block(second[m], j).reshape(g.shape) * g).sum(0)
            by_v += first[m][a] * (_block(second_slopes[m], j).reshape(g.shape) * g).sum(0)
            added.append([by_u, by_v])
        return added

    zeros = [[jnp.zeros_like(first[m][0]), jnp.zeros_like(first[m][0])] for m in moved]
    return lax.fori_loop(0, live, add_block, zeros)
