"""One tile of an image: sums over the bins (a, b) that its pixels are near, and the gradients of these sums.

At bandwidth h = 0.5 a logistic kernel falls by e^2 with each bin, and a pixel's intensity is close to the mean of
its neighbours: of the L^2 bins of a tile most are empty, and more of them the larger L is. The bins are grouped in
blocks of 4 a and 4 b. A block is visited if the pixels of the tile, all together, put more than `_SKIP` of one pixel's
mass there in either image.

A block goes through stages (products, sums over rows, sums over columns), each of which is written into buffers that
the loop over the blocks carries. Compilers do not merge what is written there with what reads it; merged, a stage would
be computed again for every pixel of a window: four to five times slower. Sums over the bins of a block are spelled out
as additions: XLA on CPU hands `sum` to a library that takes several times as long.

Arguments are planes [s, t] of a tile with its surroundings. Inside, a plane is one row of n = s t pixels, in which the
pixel below is `stride` = t further: compilers make vector instructions of long rows, and scalar ones of rows as short
as a tile is wide. Window sums over columns then reach from one line into the next, but only at pixels of the
surroundings, which are given weight 0.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sel.entropy.density import in_order
from sel.entropy.neighborhood import add_up, centred_sum, centred_sums, crop, reach

# Larger blocks hold more bins without mass, and XLA on CPU would divide them among threads, which takes longer.
_BLOCK = 4
# With 1e-5 Hellinger gradients of natural images are as near to those of float64 (1.4e-6 in the mean square), in 7 %
# less time, but the logarithm of cross entropy magnifies what is left out: 2e-4 of a gradient.
_SKIP = 1e-6


def _tables(fields, mask, bandwidth, estimator):
    """Weights of the bins of a tile, in blocks, [j, bin, n]: of a, 0 outside the mask, and of b."""

    def blocks(weights):
        rows = weights.reshape(weights.shape[0], -1)
        padded = jnp.pad(rows, [(0, -estimator.num_bins % _BLOCK), (0, 0)])
        return padded.reshape(-1, _BLOCK, rows.shape[-1])

    first = [blocks(estimator.weights(u, bandwidth, axis=0) * mask[None]) for u, _ in fields]
    return first, [blocks(estimator.weights(v, bandwidth, axis=0)) for _, v in fields]


def _worklist(first, second):
    """The blocks (i, j) of a and b that hold mass, as two arrays of indices, and how many these are."""
    masses = [p.sum(1) @ r.sum(1).T for p, r in zip(first, second, strict=True)]
    live = ~(functools.reduce(jnp.maximum, masses) <= _SKIP)  # a block with NaN is live: it must show
    return jnp.nonzero(live, size=live.size, fill_value=0), live.sum()


def _chosen(table, i):
    return lax.dynamic_index_in_dim(table, i, keepdims=False)


def _buffers(count, like, length):
    """Zeros for `count` stages of a block: one row of blocks more than is used, or compilers see through `_store`."""
    return [lax.full_like(like, 0, shape=(_BLOCK + 1, _BLOCK, length)) for _ in range(count)]


def _store(buffers, stages, start=0):
    """The buffers with each stage, [a, b, m], written from pixel `start` on, and what is to be read of them."""
    stored = [lax.dynamic_update_slice(x, y, (0, 0, start)) for x, y in zip(buffers, stages, strict=True)]
    return stored, [x[:_BLOCK] for x in stored]


def _dot(x, y):
    """sum_k x_k y_k over the bins of a block."""
    return add_up(x[k] * y[k] for k in range(_BLOCK))


def _to_row(plane, margin):
    """A plane of the tile without surroundings as window sums come: in one row, 0 where windows leave a line."""
    row = jnp.pad(plane, [(0, 0), (margin, margin)]).reshape(1, 1, -1)
    return crop(row, margin, 2)


def _to_plane(row, margin, stride):
    """The inverse of `_to_row`."""
    return crop(jnp.pad(row, margin).reshape(-1, stride), margin, 1)


def _density_buffers(tables, windows, stride):
    """Buffers of `_block_densities`."""
    count, like = len(tables), tables[0]
    length = like.shape[-1]
    summed = length - 2 * reach(windows) * stride
    return _buffers(count, like, length), _buffers(count * len(windows), like, summed)


def _block_densities(buffers, first, second, windows, shares, stride):
    """Joint densities of one block of bins: for each window, a tuple over the images; and the buffers."""
    products, sums = buffers
    products, joint = _store(products, [p[:, None] * r[None] for p, r in zip(first, second, strict=True)])
    by_row = [centred_sums(x, windows, 2, stride) for x in joint]
    sums, by_row = _store(sums, [image[i] for i in range(len(windows)) for image in by_row])
    margin, count = reach(windows), len(joint)
    densities = [
        tuple(share * centred_sum(x, taps, margin, 2) for x in by_row[i * count : (i + 1) * count])
        for i, (taps, share) in enumerate(zip(windows, shares, strict=True))
    ]
    return densities, (products, sums)


def _factor_totals(tables, divergence):
    """For a 1 x 1 window, where P_ab = p_a r_b: the sums over the bins of either factor that `combine` takes."""

    def add_block(j, totals):
        terms = [divergence.term(*(_chosen(x, j) for x in factors)) for factors in tables]
        return [total + add_up(term[k] for k in range(_BLOCK)) for total, term in zip(totals, terms, strict=True)]

    zeros = [jnp.zeros_like(factors[0][0, 0]) for factors in tables]
    return lax.fori_loop(0, tables[0][0].shape[0], add_block, zeros)


def _single_total(first, second, margin, stride, divergence):
    total = divergence.combine(*_factor_totals((first, second), divergence)).reshape(-1, stride)
    return crop(crop(total, margin, 0), margin, 1)


def _single_gradients(tables, table_slopes, margin, cotangent, divergence, moved):
    """Gradients of `_single_total` by u and v, for each image moved."""
    cotangent = jnp.pad(cotangent, margin).ravel()
    _, pullback = jax.vjp(divergence.combine, *_factor_totals(tables, divergence))
    scales = pullback(cotangent)

    def add_block(j, sums):
        slopes = [divergence.slopes(*(_chosen(x, j) for x in factors)) for factors in tables]
        return [
            [
                total + scale * _dot(_chosen(by_field[m], j), slope[m])
                for total, scale, by_field, slope in zip(pair, scales, table_slopes, slopes, strict=True)
            ]
            for m, pair in zip(moved, sums, strict=True)
        ]

    zeros = [[jnp.zeros_like(by_field[m][0, 0]) for by_field in table_slopes] for m in moved]
    return lax.fori_loop(0, tables[0][0].shape[0], add_block, zeros)


def forward(fields, mask, bandwidth, estimator, divergence):
    """sum_ab term(P_ab, Q_ab) at every pixel of the tile without its surroundings, for every window."""
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    stride = mask.shape[1]
    shares = [_to_row(share, margin) for share in estimator.shares(mask, windows)]
    first, second = _tables(fields, mask, bandwidth, estimator)
    (rows, columns), live = _worklist(first, second)

    def add_block(i, carry):
        totals, buffers = carry
        chosen = [_chosen(p, rows[i]) for p in first], [_chosen(r, columns[i]) for r in second]
        densities, buffers = _block_densities(buffers, *chosen, windows, shares, stride)
        totals = [total + divergence.term(*pair) for total, pair in zip(totals, densities, strict=True)]
        return totals, buffers

    totals = []
    if windows:
        zeros = [lax.full_like(first[0], 0, shape=(_BLOCK, _BLOCK, share.size)) for share in shares]
        totals, _ = lax.fori_loop(0, live, add_block, (zeros, _density_buffers(first, windows, stride)))
    totals = [_to_plane(total.sum((0, 1)), margin, stride) for total in totals]
    single = _single_total(first, second, margin, stride, divergence) if len(windows) < len(estimator.windows) else None
    return in_order(estimator.windows, windows, totals, single)


def backward(fields, mask, bandwidth, cotangents, estimator, divergence, moved):
    """Gradients of the sums by u and v of the images in `moved`, at every pixel with the surroundings."""
    windows = estimator.joint_windows(divergence)
    by_size = {len(taps): cotangent for taps, cotangent in zip(estimator.windows, cotangents, strict=True)}
    weights = functools.partial(_tables, mask=mask, bandwidth=bandwidth, estimator=estimator)
    (first, second), (first_slopes, second_slopes) = jax.jvp(weights, (fields,), (jax.tree.map(jnp.ones_like, fields),))
    gradients = []
    if len(windows) < len(estimator.windows):
        tables, slopes = (first, second), (first_slopes, second_slopes)
        gradients.append(_single_gradients(tables, slopes, reach(windows), by_size[1], divergence, moved))
    if windows:
        wanted = [by_size[len(taps)] for taps in windows]
        gradients.append(
            _joint_gradients(first, second, first_slopes, second_slopes, mask, wanted, estimator, divergence, moved)
        )
    return jax.tree.map(lambda *parts: add_up(parts).reshape(mask.shape), *gradients)


def _joint_gradients(first, second, first_slopes, second_slopes, mask, cotangents, estimator, divergence, moved):
    """The part of the gradients that comes through joint densities.

    With the slopes of all windows that a pixel is in gathered as G_ab, du = sum_ab p_a' r_b G_ab and dv = sum_ab p_a
    r_b' G_ab.
    """
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    stride = mask.shape[1]
    shares = estimator.shares(mask, windows)
    scales = [_to_row(share * cotangent, margin) for share, cotangent in zip(shares, cotangents, strict=True)]
    shares = [_to_row(share, margin) for share in shares]
    (rows, columns), live = _worklist(first, second)
    around = 2 * margin * (stride + 1)
    padded = shares[0].size + 2 * around

    def gathered(buffers, densities):
        """For each image moved, the slopes of all windows that a pixel is in; windows are symmetric."""
        slopes, sums = buffers
        by_window = [divergence.slopes(*pair) for pair in densities]
        scaled = [scale * slope[m] for scale, slope in zip(scales, by_window, strict=True) for m in moved]
        slopes, scaled = _store(slopes, scaled, around)
        taps_of_each = [taps for taps in windows for _ in moved]
        by_row = [centred_sum(x, taps, margin, 2, stride) for taps, x in zip(taps_of_each, scaled, strict=True)]
        sums, by_row = _store(sums, by_row)
        by_column = [centred_sum(x, taps, margin, 2) for taps, x in zip(taps_of_each, by_row, strict=True)]
        return [sum(by_column[k :: len(moved)]) for k in range(len(moved))], (slopes, sums)

    def add_block(i, carry):
        sums, density_buffers, slope_buffers = carry
        a, b = rows[i], columns[i]
        chosen = [_chosen(p, a) for p in first], [_chosen(r, b) for r in second]
        densities, density_buffers = _block_densities(density_buffers, *chosen, windows, shares, stride)
        slopes, slope_buffers = gathered(slope_buffers, densities)
        added = []
        for m, g, (by_u, by_v) in zip(moved, slopes, sums, strict=True):
            p, r = _chosen(first[m], a), _chosen(second[m], b)
            by_u += _dot(_chosen(first_slopes[m], a), add_up(r[k : k + 1] * g[:, k] for k in range(_BLOCK)))
            by_v += _dot(_chosen(second_slopes[m], b), add_up(p[k : k + 1] * g[k] for k in range(_BLOCK)))
            added.append([by_u, by_v])
        return added, density_buffers, slope_buffers

    zeros = [[jnp.zeros_like(first[m][0, 0]), jnp.zeros_like(first[m][0, 0])] for m in moved]
    count = len(windows) * len(moved)
    slope_buffers = _buffers(count, first[0], padded), _buffers(count, first[0], padded - 2 * margin * stride)
    sums, *_ = lax.fori_loop(0, live, add_block, (zeros, _density_buffers(first, windows, stride), slope_buffers))
    return sums
