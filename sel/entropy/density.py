"""Joint densities of (intensity, neighbour mean), and sums over their bins: the plain algorithm.

`density_sums` here visits all bins, for whole planes at once, and is differentiated by JAX: any number of times,
forward or backward. `sel.entropy.sparse` computes the same sums on tiles and skips the bins that no pixel of a tile
is near.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sel.entropy.divergence import Divergence, scales_of
from sel.entropy.kernels import bin_weights, kernel_values
from sel.entropy.neighborhood import Window, pad_planes, reach, window_sums

# Intensity and neighbour mean of every pixel, in bin units.
Field = tuple[Float[Array, "n h w"], Float[Array, "n h w"]]

# Elements of one bin's slab of the joint density that are worked on together: 64 MiB in float32.
_SLAB = 2**24
# Of weights; a few times the least normal number of float32.
_LEAST_SCALE = 2.0**-123


@dataclass(frozen=True)
class Estimator:
    """The static part of a kernel density estimate.

    Attributes:
      num_bins: bins L of each axis.
      kernel: name of the kernel.
      windows: weights along one side of each window, odd in number.
      published: the released code's constants, see `sel.spatial_entropy_loss`.
    """

    num_bins: int
    kernel: str
    windows: tuple[Window, ...]
    published: bool = False

    def joint_windows(self, divergence: Divergence) -> tuple[Window, ...]:
        """The windows whose densities are needed in full.

        A 1 x 1 window has P_ab = p_a r_b, and most divergences factor with it.
        """
        factored = not self.published and divergence.combine is not None
        return tuple(taps for taps in self.windows if not (factored and len(taps) == 1))

    def weights(
        self, u: Float[Array, "*pixels"], bandwidth: Any, axis: int = -1, add_bins: Callable = jnp.sum
    ) -> Float[Array, "..."]:
        """Weight of every bin for every pixel; one pixel's joint density is the outer product of its two sets."""
        options = {"num_bins": self.num_bins, "bandwidth": bandwidth, "kernel": self.kernel, "axis": axis}
        if self.published:
            # The published density divides by 0.5 h, which is h^2 only at h = 0.5: half of it goes to each factor.
            return kernel_values(u, **options) / jnp.sqrt(0.5 * bandwidth)
        return bin_weights(u, **options, add_bins=add_bins)

    def shares(self, mask: Float[Array, "*n s s2"], windows: tuple[Window, ...]) -> tuple[Float[Array, "*n t t2"], ...]:
        """1 / (weight of the pixels that count) for every window; `mask` is padded by the reach of the largest."""
        counts = window_sums(mask, windows, (-2, -1)) if windows else ()
        if self.published:
            return tuple(jnp.full_like(c, 1 / sum(taps) ** 2) for taps, c in zip(windows, counts, strict=True))
        return tuple(1 / jnp.maximum(c, 1) for c in counts)


def factored_total(divergence: Divergence, first: Any, second: Any) -> Float[Array, "*pixels"]:
    """sum_ab term(p_a r_b, ...) from sums over one axis of bins each: the first in `first`, the last in `second`.

    For example sum_ab sqrt(P_ab Q_ab) = (sum_a sqrt(p_a q_a)) (sum_b sqrt(r_b s_b)), and relative entropy adds over
    the factors.
    """
    return divergence.combine(divergence.term(*first).sum(0), divergence.term(*second).sum(-1))


def in_order(windows: tuple[Window, ...], joint: tuple[Window, ...], totals: Any, single: Any) -> tuple[Any, ...]:
    """Totals of all windows in the order asked for, from those computed jointly and that of the 1 x 1 window."""
    found = dict(zip(joint, totals, strict=True))
    return tuple(found.get(taps, single) for taps in windows)


def density_sums(
    fields: tuple[Field, ...],
    mask: Float[Array, "n h w"],
    bandwidth: Float[Array, " n"],
    *,
    estimator: Estimator,
    divergence: Divergence,
) -> tuple[Float[Array, "n h w"], ...]:
    """sum_ab term(P_ab, Q_ab) at every pixel, for every window.

    P_ab(q) = mean over q' in the window at q of p_a(u(q')) p_b(v(q')). One scan over a, holding all b of a few
    planes: memory grows with `num_bins`, not with its square, since the backward pass computes each slab again.

    Args:
      fields: (u, v) in bin units for each image that the divergence compares, one plane for each channel of each image.
      mask: 1 for the pixels that count, 0 for the others.
      bandwidth: kernel width in bins, for each plane.
      estimator: bins, kernel and windows.
      divergence: what is summed.

    Returns:
      One array of sums for each window.
    """
    one_plane = jax.checkpoint(lambda args: _plane_sums(*args, estimator=estimator, divergence=divergence))
    h, w = mask.shape[1:]
    known = isinstance(h, int) and isinstance(w, int)  # not in `jax.export` with symbolic sides
    planes = max(1, _SLAB // (h * w * estimator.num_bins)) if known else 1
    return lax.map(one_plane, (fields, mask, bandwidth), batch_size=planes if planes > 1 else None)


def _plane_sums(fields, mask, bandwidth, *, estimator, divergence):
    first = [estimator.weights(u, bandwidth, axis=0) * mask[None] for u, _ in fields]
    second = [estimator.weights(v, bandwidth) for _, v in fields]
    windows = estimator.joint_windows(divergence)
    if not windows:
        return in_order(estimator.windows, (), (), factored_total(divergence, first, second))
    margin = reach(windows)
    shares = [share[..., None] for share in estimator.shares(pad_planes(mask, margin), windows)]

    scaled = divergence.scaled
    if scaled:
        sizes = [largest(p, (1, 2)) for p in first], [largest(r * mask[..., None], (0, 1)) for r in second]
        factors = [
            (inverse(s)[:, None, None] * mask[None], inverse(t)[None, None]) for s, t in zip(*sizes, strict=True)
        ]
        pairs = [
            [
                _scaled_weights(estimator, axis, x, bandwidth, factor)
                for axis, x, factor in zip((0, -1), *both, strict=True)
            ]
            for both in zip(fields, factors, strict=True)
        ]
        rows, columns = ([p for p, _ in pairs], sizes[0]), [r for _, r in pairs]
    else:
        sizes, rows, columns = ([], []), (first, []), second

    @jax.checkpoint
    def add_bin(totals, bin_rows):
        bin_rows, size = bin_rows
        term = functools.partial(_scaled_term, scaled, size, sizes[1]) if scaled else divergence.term
        joint = [p[..., None] * r for p, r in zip(bin_rows, columns, strict=True)]
        padded = (jnp.pad(x, [(margin, margin), (margin, margin), (0, 0)]) for x in joint)
        by_image = [window_sums(x, windows, (0, 1)) for x in padded]
        terms = [
            term(*(share * density for density in densities))
            for share, densities in zip(shares, zip(*by_image, strict=True), strict=True)
        ]
        return tuple(total + term.sum(-1) for total, term in zip(totals, terms, strict=True)), None

    # zeros_like: under shard_map the sums have to vary over the mesh from the start, as the fields do
    zeros = tuple(jnp.zeros_like(fields[0][0], shape=mask.shape) for _ in windows)
    totals, _ = lax.scan(add_bin, zeros, rows)
    single = factored_total(divergence, first, second) if len(windows) < len(estimator.windows) else None
    return in_order(estimator.windows, windows, totals, single)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _scaled_weights(estimator, axis, u, bandwidth, factor):
    """Weights times a factor, with slopes that are multiplied by it first: a large factor times theirs overflows."""
    return estimator.weights(u, bandwidth, axis=axis) * factor


@_scaled_weights.defjvp
def _(estimator, axis, primals, tangents):
    u, bandwidth, factor = primals
    weights, slopes = jax.jvp(lambda u: estimator.weights(u, bandwidth, axis=axis), (u,), (jnp.ones_like(u),))
    return weights * factor, slopes * factor * jnp.expand_dims(tangents[0], axis)


def _scaled_term(divergence, first, second, *densities):
    return divergence.term(*densities, scales_of(first, [t[None, None] for t in second]))


def largest(weights: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """The scale of each bin: its largest weight, rounded to a power of two, a constant for derivatives.

    Divided by it, weights of bins that all pixels are far from still have products that float32 holds. Multiplying by a
    power of two loses no digit, so that nearly equal densities keep their difference.
    """
    least = jnp.maximum(weights.max(axes), _LEAST_SCALE)
    return lax.stop_gradient(lax.reduce_precision(least, jnp.finfo(least.dtype).nexp, 0))


def inverse(scale: Float[Array, "..."]) -> Float[Array, "..."]:
    """What weights are multiplied by to be on this scale: 0 where all have underflown, so that they have no slope."""
    return jnp.where(scale > _LEAST_SCALE, 1 / scale, 0)


def global_densities(
    fields: tuple[Field, ...], mask: Float[Array, "n h w"], bandwidth: Float[Array, " n"], *, estimator: Estimator
) -> tuple[Float[Array, "n l l2"], ...]:
    """The joint density of each whole plane and image: one product of two [l, pixels] matrices."""

    @jax.checkpoint
    def plane_density(args):
        (u, v), mask, h = args
        first = estimator.weights(u.ravel(), h) * mask.reshape(-1, 1)
        total = mask.size if estimator.published else jnp.maximum(mask.sum(), 1)
        return first.T @ estimator.weights(v.ravel(), h) / total

    return tuple(lax.map(plane_density, (field, mask, bandwidth)) for field in fields)
