"""The same sums as `density.density_sums` on small tiles, visiting only the bins that some pixel of the tile is near.

At bandwidth h = 0.5 a logistic kernel falls by e^2 with each bin, and a pixel's intensity is close to the mean of
its neighbours: of the L^2 bins of a tile most are empty, and more of them the larger L is. The bins (a, b) are
grouped in blocks of one a and 8 b. A block is visited if the pixels of the tile, all together, put more than `_SKIP`
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

_TILE = 32
_BLOCK = 8
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
    n, h, w = mask.shape
    size = min(_TILE, max(h, w))
    rows, columns = -(-h // size), -(-w // size)

    margin = reach(estimator.joint_windows(divergence))

    def tiles(x):
        return _split(x, size, rows, columns, margin)

    tiled = (jax.tree.map(tiles, fields), tiles(mask), jnp.repeat(bandwidth, rows * columns))
    sums = _tile_sums(*tiled, estimator, divergence)

    def plane(x):
        x = x.reshape(n, rows, columns, size, size).swapaxes(2, 3)
        return x.reshape(n, rows * size, columns * size)[:, :h, :w]

    return jax.tree.map(plane, sums)


def _split(x, size, rows, columns, margin):
    """Square tiles `[n rows columns, s, s]` with `margin` pixels of their surroundings, zeros beyond the plane."""
    _, h, w = x.shape
    side = size + 2 * margin
    x = jnp.pad(x, [(0, 0), (margin, margin + rows * size - h), (margin, margin + columns * size - w)])
    x = jnp.stack([x[:, i * size : i * size + side] for i in range(rows)], axis=1)
    x = jnp.stack([x[..., j * size : j * size + side] for j in range(columns)], axis=2)
    return x.reshape(-1, side, side)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _tile_sums(fields, mask, bandwidth, estimator, divergence):
    def one_tile(tile):
        fields, mask, bandwidth = tile
        return _forward(fields, mask, bandwidth, estimator, divergence)

    return lax.map(one_tile, (fields, mask, bandwidth))


def _tile_sums_fwd(fields, mask, bandwidth, estimator, divergence):
    fields, wanted = _values(fields)
    mask, bandwidth = mask.value, bandwidth.value
    return _tile_sums(fields, mask, bandwidth, estimator, divergence), (fields, wanted, mask, bandwidth)


def _values(fields):
    """Plain arrays of the marked arguments of a custom_vjp, and the marks (is a gradient asked for?) without leaves."""
    values = jax.tree.map(lambda x: x.value, fields, is_leaf=lambda x: hasattr(x, "perturbed"))
    return values, tuple(() if u.perturbed or v.perturbed else None for u, v in fields)


def _tile_sums_bwd(estimator, divergence, residuals, cotangents):
    fields, wanted, mask, bandwidth = residuals
    cotangents = tuple(
        jnp.zeros(c.shape, c.dtype) if isinstance(c, jax.custom_derivatives.SymbolicZero) else c for c in cotangents
    )
    moved = tuple(i for i, mark in enumerate(wanted) if mark is not None)
    gradients = dict(
        zip(moved, _gradients(fields, mask, bandwidth, cotangents, estimator, divergence, moved), strict=True)
    )
    return tuple(tuple(gradients.get(i, (None, None))) for i in range(len(fields))), None, None


_tile_sums.defvjp(_tile_sums_fwd, _tile_sums_bwd, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5, 6))
def _gradients(fields, mask, bandwidth, cotangents, estimator, divergence, moved):
    def one_tile(tile):
        fields, mask, bandwidth, cotangents = tile
        return _backward(fields, mask, bandwidth, cotangents, estimator, divergence, moved)

    return lax.map(one_tile, (fields, mask, bandwidth, cotangents))


@_gradients.defjvp
def _gradients_jvp(estimator, divergence, moved, primals, tangents):
    """Second derivatives go through the plain algorithm, on the same tiles."""
    fields, mask, bandwidth, cotangents = primals
    margin = reach(estimator.joint_windows(divergence))

    def tile_sums(fields):
        totals = density.density_sums(fields, mask, bandwidth, estimator=estimator, divergence=divergence)
        return tuple(crop(crop(total, margin, 1), margin, 2) for total in totals)

    def dense_gradients(fields, cotangents):
        (gradients,) = jax.vjp(tile_sums, fields)[1](cotangents)
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
    """Weights of the bins of a tile: of a, [l, s, s], 0 outside the mask, and of b in blocks, [blocks, s, block, s].

    Bins stand between rows and columns so that the innermost loops run over the columns of the tile, however small a
    block is.
    """
    first = [estimator.weights(u, bandwidth, axis=0) * mask[None] for u, _ in fields]
    second = [_blocks(estimator.weights(v, bandwidth, axis=1)) for _, v in fields]
    return first, second


def _blocks(weights):
    rows, bins, columns = weights.shape
    weights = jnp.pad(weights, [(0, 0), (0, -bins % _BLOCK), (0, 0)])
    return jnp.moveaxis(weights.reshape(rows, -1, _BLOCK, columns), 1, 0)


def _worklist(first, second):
    """The blocks that hold mass, as indices a * blocks + block with the live ones in front, and how many are live."""
    masses = [
        p.reshape(p.shape[0], -1) @ r.sum(2).reshape(r.shape[0], -1).T for p, r in zip(first, second, strict=True)
    ]
    live = ~(functools.reduce(jnp.maximum, masses).ravel() <= _SKIP)  # a block with NaN is live: it must show
    return jnp.argsort(~live), live.sum()


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
    return first, [crop(crop(r, margin, 1), margin, 3) for r in second]


def _single_total(first, second, windows, divergence):
    first, second = _inner(first, second, windows)
    return factored_total(divergence, first, second, (0, 2))


def _forward(fields, mask, bandwidth, estimator, divergence):
    windows = estimator.joint_windows(divergence)
    shares = [share[:, None] for share in estimator.shares(mask, windows)]
    first, second = _tables(fields, mask, bandwidth, estimator)
    order, live = _worklist(first, second)
    blocks = second[0].shape[0]

    def add_block(i, totals):
        a, j = order[i] // blocks, order[i] % blocks
        densities = _block_densities(i < live, [p[a] for p in first], [r[j] for r in second], windows, shares)
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
        [(p * g).sum(0), (r * h).sum((0, 2))]
        for p, g, r, h in zip(first_slopes, by_u, second_slopes, by_v, strict=True)
    ]
    gradients = [gradients[m] for m in moved]
    if not windows:
        return gradients
    scales = [share * by_size[len(taps)] for taps, share in zip(windows, estimator.shares(mask, windows), strict=True)]
    joint = _joint_gradients(first, second, first_slopes, second_slopes, mask, scales, estimator, divergence, moved)
    return jax.tree.map(jnp.add, gradients, joint)


def _joint_gradients(first, second, first_slopes, second_slopes, mask, scales, estimator, divergence, moved):
    """The part of the gradients that comes through joint densities.

    With the slopes of all windows that a pixel is in gathered as G_ab, du = sum_b r_b U_b and dv = sum_b r_b' V_b,
    where the loop adds up U_b = sum_a p_a' G_ab and V_b = sum_a p_a G_ab.
    """
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    shares = [share[:, None] for share in estimator.shares(mask, windows)]
    scales = [scale[:, None] for scale in scales]
    order, live = _worklist(first, second)
    blocks = second[0].shape[0]

    def slopes(densities):
        by_window = [
            [scale * slope for slope in divergence.slopes(*pair)] for scale, pair in zip(scales, densities, strict=True)
        ]
        around = (2 * margin, 2 * margin)
        return [[jnp.pad(window[m], [around, (0, 0), around]) for window in by_window] for m in moved]

    def row_sums(padded):
        return [[centred_sum(g, taps, margin, 0) for taps, g in zip(windows, image, strict=True)] for image in padded]

    def add_block(i, sums):
        a, j = order[i] // blocks, order[i] % blocks
        go = i < live
        densities = _block_densities(go, [p[a] for p in first], [r[j] for r in second], windows, shares)
        rows = _apart(go, row_sums, _apart(go, slopes, densities))
        added = []
        for m, image, (by_u, by_v) in zip(moved, rows, sums, strict=True):
            g = sum(centred_sum(row, taps, margin, 2) for taps, row in zip(windows, image, strict=True))
            added.append((by_u.at[j].add(first_slopes[m][a][:, None] * g), by_v.at[j].add(first[m][a][:, None] * g)))
        return added

    zeros = [(jnp.zeros_like(second[m]), jnp.zeros_like(second[m])) for m in moved]
    sums = lax.fori_loop(0, live, add_block, zeros)
    return [
        [(second[m] * by_u).sum((0, 2)), (second_slopes[m] * by_v).sum((0, 2))]
        for m, (by_u, by_v) in zip(moved, sums, strict=True)
    ]
