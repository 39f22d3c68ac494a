"""A group of tiles of an image: sums over the bins (a, b) that their pixels are near, and the gradients of these sums.

At bandwidth h = 0.5 a logistic kernel falls by e^2 with each bin, and a pixel's intensity is close to the mean of
its neighbours: of the L^2 bins of a tile most are empty, and more of them the larger L is. A block of bins is visited
if the pixels of the tile, all together, put more than a millionth of one pixel's mass there in either image.

A block goes through stages (products, sums over rows, sums over columns), each of which is stored before the next
(`sel.entropy.loops`). Each tile has a loop over its blocks, with stores of its own, so that the tiles of a group can be
computed side by side on several threads.

Arguments are planes [g, s, t] of tiles with their surroundings. Inside, a plane is one row of n = s t pixels, in which
the pixel below is `stride` = t further. Window sums over columns then reach from one line into the next, but only at
pixels of the surroundings, which are given weight 0.
"""

import functools

import jax
import jax.numpy as jnp

from sel.entropy import density, tables
from sel.entropy.density import in_order
from sel.entropy.divergence import Scales, scales_of
from sel.entropy.loops import buffers, evenly, loop, store
from sel.entropy.neighborhood import add_up, centred_sum, centred_sums, crop, reach
from sel.entropy.tables import BLOCK


def _to_row(plane, margin):
    """Planes of the tiles without surroundings as window sums come: in one row, 0 where windows leave a line."""
    row = jnp.pad(plane, [(0, 0), (0, 0), (margin, margin)]).reshape(len(plane), -1)
    return crop(row, margin, 1)


def _to_plane(rows, margin, stride):
    """The inverse of `_to_row`."""
    return crop(jnp.pad(rows, [(0, 0), (margin, margin)]).reshape(len(rows), -1, stride), margin, 2)


def _density_buffers(like, count, windows):
    """Buffers of `_block_densities` for one tile like this plane, of `count` images."""
    s, t = like.shape[-2:]
    summed = (s - 2 * reach(windows)) * t
    products = buffers(count, like, (BLOCK, BLOCK, s * t))
    return products, buffers(count * len(windows), like, (BLOCK, BLOCK, summed))


def forward_buffers(like, images, estimator, divergence):
    """What `forward` needs to work in, for tiles like these planes."""
    windows = estimator.joint_windows(divergence)
    return [_density_buffers(like, images, windows) for _ in like] if windows else []


def backward_buffers(like, images, estimator, divergence, moved):
    """What `backward` needs to work in, for tiles like these planes."""
    windows = estimator.joint_windows(divergence)
    if not windows:
        return []
    margin, (s, t) = reach(windows), like.shape[-2:]
    n, count = s * t, len(windows) * moved

    def one_tile():
        slopes = buffers(count, like, (BLOCK, BLOCK, n + 2 * margin * (t + 1)))
        sums, total = buffers(count, like, (BLOCK, BLOCK, n + 2 * margin)), buffers(moved, like, (BLOCK, BLOCK, n))
        return _density_buffers(like, images, windows), (slopes, sums, total), buffers(4 * moved, like, (BLOCK, n))

    return [one_tile() for _ in like]


def _block_densities(work, first, second, windows, shares, stride):
    """Joint densities of one block of bins: for each window, a tuple over the images; and the buffers."""
    products, sums = work
    products, joint = store(products, [p[:, None] * r[None] for p, r in zip(first, second, strict=True)])
    of_images = [centred_sums(x, windows, 2, stride) for x in joint]
    sums, by_row = store(sums, [image[i] for i in range(len(windows)) for image in of_images])
    margin, count = reach(windows), len(joint)
    densities = [
        tuple(share * centred_sum(x, taps, margin, 2) for x in by_row[i * count : (i + 1) * count])
        for i, (taps, share) in enumerate(zip(windows, shares, strict=True))
    ]
    return densities, (products, sums)


class Measure:
    """A divergence at a block of bins of a tile; of scaled densities, with a scale for each bin and tile."""

    def __init__(self, divergence, first, second, group):
        """From the tables of weights of each image."""
        self.divergence, self.images = divergence, len(first)
        if divergence.scaled:
            sides = [[tables.scales(table, group) for table in side] for side in (first, second)]
            # Here and not in a pass of a loop, which may compute only what it carries.
            self.scales = scales_of(*sides)
            self.inverses = [[density.inverse(scale) for scale in side] for side in sides]

    def at(self, a, b, tile):
        """Term and slopes at blocks a and b, and what brings the weights of each image and axis to scale."""
        scaled = self.divergence.scaled
        if scaled is None:
            return self.divergence.term, self.divergence.slopes, [[lambda weights: weights] * self.images] * 2
        of_first = functools.partial(tables.scale_of, i=a, tile=tile, axis=0)
        of_second = functools.partial(tables.scale_of, i=b, tile=tile, axis=1)

        def both(pair):
            return of_first(pair[0]), of_second(pair[1])

        first, second, ratio, inverse, logs = self.scales
        scales = Scales(
            tuple(map(of_first, first)),
            tuple(map(of_second, second)),
            both(ratio),
            both(inverse),
            tuple(map(both, logs)),
        )
        firsts = [functools.partial(jnp.multiply, of_first(x)[:, 0]) for x in self.inverses[0]]
        seconds = [functools.partial(jnp.multiply, of_second(x)[0]) for x in self.inverses[1]]
        to_scale = firsts, seconds
        return (lambda P, Q: scaled.term(P, Q, scales)), (lambda P, Q: scaled.slopes(P, Q, scales)), to_scale


def _side_by_side(one_tile, live, work):
    """`one_tile(tile, buffers)`, which visits as many blocks as `live` says, for each tile; and the buffers."""
    order = evenly(live)
    one_tile = jax.jit(one_tile)  # traced and lowered once, not once for each tile
    results, work = zip(*(one_tile(order[k], mine) for k, mine in enumerate(work)), strict=True)
    back = jnp.argsort(order)
    return jax.tree.map(lambda *parts: jnp.stack(parts)[back], *results), list(work)


def forward(fields, mask, bandwidth, work, estimator, divergence):
    """sum_ab term(P_ab, Q_ab) at every pixel of the tiles without their surroundings, for every window; the buffers."""
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    group, _, stride = mask.shape
    first, second = tables.make(fields, mask, bandwidth, estimator)
    totals = []
    if windows:
        shares = [_to_row(share, margin) for share in estimator.shares(mask, windows)]
        rows, columns, live = tables.worklist(first, second, group)
        measure = Measure(divergence, first, second, group)

        def one_tile(tile, work):
            look_up = functools.partial(tables.chosen, tile=tile, pixels=mask[0].size)
            mine = [share[tile][None, None] for share in shares]

            def add_block(i, carry):
                totals, work = carry
                a, b = rows[tile, i], columns[tile, i]
                term, _, (to_first, to_second) = measure.at(a, b, tile)
                p = [scale(look_up(x, a)) for x, scale in zip(first, to_first, strict=True)]
                r = [scale(look_up(x, b)) for x, scale in zip(second, to_second, strict=True)]
                densities, work = _block_densities(work, p, r, windows, mine, stride)
                return [x + term(*pair) for x, pair in zip(totals, densities, strict=True)], work

            zeros = [jnp.zeros_like(first[0], shape=(BLOCK, BLOCK, share.shape[-1])) for share in shares]
            return loop(live[tile], add_block, (zeros, work))

        totals, work = _side_by_side(one_tile, live, work)
        totals = [add_up(x[:, a, b] for a in range(BLOCK) for b in range(BLOCK)) for x in totals]
        totals = [_to_plane(x, margin, stride) for x in totals]
    single = None
    if len(windows) < len(estimator.windows):
        single = tables.single_total((first, second), mask.shape, margin, divergence)
    return in_order(estimator.windows, windows, totals, single), work


def backward(fields, mask, bandwidth, cotangents, work, estimator, divergence, moved):
    """Gradients of the sums by u and v of the images in `moved`, at every pixel with the surroundings; the buffers."""
    windows = estimator.joint_windows(divergence)
    by_size = {len(taps): cotangent for taps, cotangent in zip(estimator.windows, cotangents, strict=True)}
    make = functools.partial(tables.make, mask=mask, bandwidth=bandwidth, estimator=estimator)
    weights, slopes = jax.jvp(make, (fields,), (jax.tree.map(jnp.ones_like, fields),))
    gradients = []
    if len(windows) < len(estimator.windows):
        gradients.append(tables.single_gradients(weights, slopes, reach(windows), by_size[1], divergence, moved))
    if windows:
        wanted = [by_size[len(taps)] for taps in windows]
        joint, work = _joint_gradients(weights, slopes, mask, wanted, work, estimator, divergence, moved)
        gradients.append(joint)
    return jax.tree.map(lambda *parts: add_up(x.reshape(mask.shape) for x in parts), *gradients), work


def _gather(work, densities, scales, windows, slopes_of, moved, stride):
    """For each image moved, G_ab: the slopes of all windows that a pixel is in, which are symmetric; the buffers."""
    slopes, sums, total = work
    margin = reach(windows)
    by_window = [slopes_of(*pair) for pair in densities]
    scaled = [scale * slope[m] for scale, slope in zip(scales, by_window, strict=True) for m in moved]
    slopes, scaled = store(slopes, scaled, 2 * margin * (stride + 1))
    taps_of_each = [taps for taps in windows for _ in moved]
    by_row = [centred_sum(x, taps, margin, 2, stride) for taps, x in zip(taps_of_each, scaled, strict=True)]
    sums, by_row = store(sums, by_row)
    by_column = [centred_sum(x, taps, margin, 2) for taps, x in zip(taps_of_each, by_row, strict=True)]
    total, gathered = store(total, [add_up(by_column[k :: len(moved)]) for k in range(len(moved))])
    return gathered, (slopes, sums, total)


def _joint_gradients(weights, weight_slopes, mask, cotangents, work, estimator, divergence, moved):
    """The part of the gradients that comes through joint densities, and the buffers.

    With the slopes of all windows that a pixel is in gathered as G_ab, du = sum_ab p_a' r_b G_ab and dv = sum_ab p_a
    r_b' G_ab.
    """
    windows = estimator.joint_windows(divergence)
    margin = reach(windows)
    group, _, stride = mask.shape
    shares = estimator.shares(mask, windows)
    scales = [_to_row(share * cotangent, margin) for share, cotangent in zip(shares, cotangents, strict=True)]
    shares = [_to_row(share, margin) for share in shares]
    (first, second), (first_slopes, second_slopes) = weights, weight_slopes
    rows, columns, live = tables.worklist(first, second, group)
    measure = Measure(divergence, first, second, group)

    def one_tile(tile, work):
        look_up = functools.partial(tables.chosen, tile=tile, pixels=mask[0].size)
        my_shares, my_scales = ([x[tile][None, None] for x in both] for both in (shares, scales))

        def add_block(i, carry):
            sums, (density_work, gather_work, chosen_work) = carry
            a, b = rows[tile, i], columns[tile, i]
            _, slopes_of, (to_first, to_second) = measure.at(a, b, tile)
            p = [scale(look_up(x, a)) for x, scale in zip(first, to_first, strict=True)]
            r = [scale(look_up(x, b)) for x, scale in zip(second, to_second, strict=True)]
            densities, density_work = _block_densities(density_work, p, r, windows, my_shares, stride)
            gathered, gather_work = _gather(gather_work, densities, my_scales, windows, slopes_of, moved, stride)
            p_slopes = [to_first[m](look_up(first_slopes[m], a)) for m in moved]
            r_slopes = [to_second[m](look_up(second_slopes[m], b)) for m in moved]
            chosen = [(p[m], r[m], p_slopes[k], r_slopes[k]) for k, m in enumerate(moved)]
            chosen_work, kept = store(chosen_work, sum(chosen, ()))
            for k, (G, pair) in enumerate(zip(gathered, sums, strict=True)):
                p_a, r_b, p_slope, r_slope = kept[4 * k : 4 * k + 4]
                pair[0] += tables.dot(p_slope, add_up(r_b[j : j + 1] * G[:, j] for j in range(BLOCK)))
                pair[1] += tables.dot(r_slope, add_up(p_a[j : j + 1] * G[j] for j in range(BLOCK)))
            return sums, (density_work, gather_work, chosen_work)

        zeros = [[jnp.zeros_like(first[0], shape=(mask[0].size,)) for _ in range(2)] for _ in moved]
        return loop(live[tile], add_block, (zeros, work))

    return _side_by_side(one_tile, live, work)
