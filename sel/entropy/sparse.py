"""The same sums as `density.density_sums` on small tiles, visiting only the bins that some pixel of the tile is near.

At bandwidth h = 0.5 a logistic kernel falls by e^2 with each bin, and a pixel's intensity is close to the mean of its neighbours: of the L^2
bins of a tile most are empty, and more of them the larger L is. The bins (a, b) are grouped in blocks of one a and up to 32 b. A block is
visited if the pixels of the tile, all together, put more than `_SKIP` of one pixel's mass there in either image. Everything of a tile
fits in the processor's cache. The gradient is written by hand and computes the densities again.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sel.entropy import density
from sel.entropy.density import Estimator, Field
from sel.entropy.divergence import Divergence
from sel.entropy.neighborhood import centred_sum, centred_sums, pad_planes

_TILE = 32
_BLOCK = 32
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

    def tiles(x):
        return _split(x, size, rows, columns, estimator.reach)

    tiled = (jax.tree.map(tiles, fields), tiles(mask), jnp.repeat(bandwidth, rows * columns))
    sums = _tile_sums(*tiled, estimator, divergence)

    def plane(x):
        x = x.reshape(n, rows, columns, size, size).swapaxes(2, 3)
        return x.reshape(n, rows * size, columns * size)[:, :h, :w]

    return jax.tree.map(plane, sums)


def _split(x, size, rows, columns, reach):
    """Tiles with `reach` pixels of their surroundings (zeros beyond the plane): [n rows columns, size + 2 reach, size + 2 reach]."""
    n, h, w = x.shape
    side = size + 2 * reach
    x = jnp.pad(x, [(0, 0), (reach, reach + rows * size - h), (reach, reach + columns * size - w)])
    x = jnp.stack([x[:, i * size : i * size + side] for i in range(rows)], axis=1)
    x = jnp.stack([x[..., j * size : j * size + side] for j in range(columns)], axis=2)
    return x.reshape(-1, side, side)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _tile_sums(fields, mask, bandwidth, estimator, divergence):
    return lax.map(lambda tile: _forward(*tile, estimator, divergence), (fields, mask, bandwidth))


def _tile_sums_fwd(fields, mask, bandwidth, estimator, divergence):
    fields, wanted = _values(fields)
    mask, bandwidth = mask.value, bandwidth.value
    return _tile_sums(fields, mask, bandwidth, estimator, divergence), (fields, wanted, mask, bandwidth)


def _values(fields):
    """Plain arrays of arguments marked with whether a gradient is asked for, and these marks as a pytree without leaves."""
    values = jax.tree.map(lambda x: x.value, fields, is_leaf=lambda x: hasattr(x, "perturbed"))
    return values, tuple(() if u.perturbed or v.perturbed else None for u, v in fields)


def _tile_sums_bwd(estimator, divergence, residuals, cotangents):
    fields, wanted, mask, bandwidth = residuals
    cotangents = tuple(
        jnp.zeros(c.shape, c.dtype) if isinstance(c, jax.custom_derivatives.SymbolicZero) else c for c in cotangents
    )
    moved = tuple(i for i, mark in enumerate(wanted) if mark is not None)
    gradients = lax.map(
        lambda tile: _backward(*tile, estimator, divergence, moved), (fields, mask, bandwidth, cotangents)
    )
    gradients = dict(zip(moved, gradients, strict=True))
    return tuple(gradients.get(i, (None, None)) for i in range(len(fields))), None, None


_tile_sums.defvjp(_tile_sums_fwd, _tile_sums_bwd, symbolic_zeros=True)


def _apart(go, compute, *operands):
    """`compute(*operands)` in a branch of its own.

    Compilers do not merge loops across a branch, so that the result is stored once; merged with the window sums that read it, it would be
    computed again for every window: five times slower.
    """
    like = jax.tree.leaves(operands)[0]

    def nothing(*operands):
        shapes = jax.eval_shape(compute, *operands)
        return jax.tree.map(lambda s: lax.full_like(like, 0, s.dtype, s.shape), shapes)

    return lax.cond(go, compute, nothing, *operands)


def _tables(fields, mask, bandwidth, estimator):
    """Weights of the bins for one tile: of a, [l, s, s], zero outside the mask, and of b in blocks, [blocks, s, s, block]."""
    first = [estimator.weights(u, bandwidth, axis=0) * mask[None] for u, _ in fields]
    second = [_blocks(estimator.weights(v, bandwidth)) for _, v in fields]
    return first, second


def _blocks(weights):
    size = min(_BLOCK, weights.shape[-1])
    weights = jnp.pad(weights, [(0, 0), (0, 0), (0, -weights.shape[-1] % size)])
    return jnp.moveaxis(weights.reshape(*weights.shape[:2], -1, size), 2, 0)


def _worklist(first, second):
    """The blocks that hold mass, as indices a * blocks + block with the live ones in front, and how many are live."""
    masses = [
        p.reshape(p.shape[0], -1) @ r.sum(-1).reshape(r.shape[0], -1).T for p, r in zip(first, second, strict=True)
    ]
    live = functools.reduce(jnp.maximum, masses).ravel() > _SKIP
    return jnp.argsort(~live), live.sum()


def _block_densities(go, rows, columns, windows, shares):
    """Joint densities of one block of bins, for each window a tuple over the images."""
    reach = max(windows) // 2
    summed = _apart(
        go,
        lambda rows, columns: [centred_sums(p[..., None] * r, windows, 1) for p, r in zip(rows, columns, strict=True)],
        rows,
        columns,
    )
    return [
        tuple(share * centred_sum(image[i], k, reach, 0) for image in summed)
        for i, (k, share) in enumerate(zip(windows, shares, strict=True))
    ]


def _forward(fields, mask, bandwidth, estimator, divergence):
    windows = estimator.windows
    shares = [share[..., None] for share in estimator.shares(mask)]
    first, second = _tables(fields, mask, bandwidth, estimator)
    order, live = _worklist(first, second)
    blocks, *_, block = second[0].shape

    def add_block(i, totals):
        a, j = order[i] // blocks, order[i] % blocks
        densities = _block_densities(i < live, [p[a] for p in first], [r[j] for r in second], windows, shares)
        return tuple(total + divergence.term(*pair) for total, pair in zip(totals, densities, strict=True))

    zeros = tuple(lax.full_like(first[0], 0, shape=(*share.shape[:2], block)) for share in shares)
    return tuple(total.sum(-1) for total in lax.fori_loop(0, live, add_block, zeros))


def _backward(fields, mask, bandwidth, cotangents, estimator, divergence, moved):
    """Gradients by u and v of the images in `moved`: du = sum_b r_b U_b and dv = sum_b r_b' V_b with the sums over a, in the loop,
    U_b = sum_a p_a' G_ab and V_b = sum_a p_a G_ab, where G_ab gathers the slopes of all windows that a pixel is in."""
    windows, reach = estimator.windows, estimator.reach
    shares = [share[..., None] for share in estimator.shares(mask)]
    scales = [share * cotangent[..., None] for share, cotangent in zip(shares, cotangents, strict=True)]
    ones = jax.tree.map(jnp.ones_like, fields)
    (first, second), (first_slopes, second_slopes) = jax.jvp(
        lambda fields: _tables(fields, mask, bandwidth, estimator), (fields,), (ones,)
    )
    order, live = _worklist(first, second)
    blocks = second[0].shape[0]

    def slopes(go, densities):
        def compute(densities):
            by_window = [
                [scale * slope for slope in divergence.slopes(*pair)]
                for scale, pair in zip(scales, densities, strict=True)
            ]
            return [[jnp.pad(g[m], [(2 * reach, 2 * reach)] * 2 + [(0, 0)]) for g in by_window] for m in moved]

        return _apart(go, compute, densities)

    def gather(padded):
        rows = [centred_sum(g, k, reach, 0) for k, g in zip(windows, padded, strict=True)]
        return sum(centred_sum(row, k, reach, 1) for k, row in zip(windows, rows, strict=True))

    def add_block(i, sums):
        go = i < live
        a, j = order[i] // blocks, order[i] % blocks
        densities = _block_densities(go, [p[a] for p in first], [r[j] for r in second], windows, shares)
        padded = slopes(go, densities)
        out = []
        for m, g, (by_u, by_v) in zip(moved, padded, sums, strict=True):
            g = gather(g)
            out.append((by_u.at[j].add(first_slopes[m][a][..., None] * g), by_v.at[j].add(first[m][a][..., None] * g)))
        return out

    zeros = [(jnp.zeros_like(second[m]), jnp.zeros_like(second[m])) for m in moved]
    sums = lax.fori_loop(0, live, add_block, zeros)
    return tuple(
        ((second[m] * by_u).sum((0, -1)), (second_slopes[m] * by_v).sum((0, -1)))
        for m, (by_u, by_v) in zip(moved, sums, strict=True)
    )
