"""What tests of the loss share: its float64 NumPy evaluation, one pixel after the other, and a quick compiler.

Written from the formulas alone. Images are [..., h, w, c]. Nothing here knows of floors, tiles or factored sums.
"""

import functools

import jax
import numpy as np

DIVERGENCES = ("hellinger", "relative", "cross", "jensen_shannon")
KERNELS = ("logistic", "sech", "gaussian")
_OFFSETS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))


def quick_jit(function, level=0):
    """`jax.jit` with less optimisation: level 0 compiles in a fifth of the time, level 1 in a half, to slower code."""
    return jax.jit(function, compiler_options=_compiler_options(level))


@functools.cache
def _compiler_options(level):
    options = {"xla_backend_optimization_level": level, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except (RuntimeError, ValueError):  # a jaxlib without these options
        return {}
    return options


def slope(function, x, direction, step=1e-5):
    """Central difference of `function` at `x`: what a gradient gives when multiplied by `direction`."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def spatial_entropy_loss(predictions, targets, *, where=None, **options):
    """Mean over pixels, channels and windows of the divergence of the two densities: one value per image."""
    return _mean(loss_map(predictions, targets, where=where, **options), where)


def spatial_entropy(images, *, windows=(1, 3, 5), where=None, **options):
    """H = -sum_ab P log P, averaged like the loss."""
    P = joint_density(images, windows=windows, where=where, **options)
    values = -_sum(P * _log(P))
    return _mean(values if windows == "global" else values.mean(0), where)


def loss_map(predictions, targets, *, divergence="hellinger", windows=(1, 3, 5), **options):
    """Divergence at every pixel and channel, mean over windows: [..., h, w, c]; of the whole image [..., 1, 1, c]."""
    P, Q = (joint_density(x, windows=windows, **options) for x in (predictions, targets))
    values = _DIVERGENCES[divergence](P, Q)
    return values if windows == "global" else values.mean(0)


def joint_density(
    images,
    *,
    num_bins=32,
    bandwidth=0.5,
    kernel="logistic",
    windows=(1, 3, 5),
    neighbor_weights=None,
    value_range=(0, 1),
    where=None,
):
    """P_k[a, b](q): [k, ..., h, w, c, a, b], 0 at the pixels left out; for the whole image [..., 1, 1, c, a, b]."""
    images = np.asarray(images, np.float64)
    *batch, h, w, c = images.shape
    valid = np.ones(images.shape, bool) if where is None else np.asarray(where)
    low, high = value_range
    u = (np.clip(np.where(valid, images, low), low, high) - low) / (high - low) * (num_bins - 1)
    weights = np.ones((3, 3)) if neighbor_weights is None else np.asarray(neighbor_weights, np.float64)

    u, valid = (np.moveaxis(x, -1, -3).reshape(-1, h, w) for x in (u, valid))
    v = np.stack([_neighbor_means(*plane, weights) for plane in zip(u, valid, strict=True)])
    p, r = (_shares_of_bins(x, num_bins, bandwidth, kernel) for x in (u, v))
    planes = list(zip(p[..., :, None] * r[..., None, :], valid, strict=True))

    if windows == "global":
        P = np.stack([joint[inside].mean(0) for joint, inside in planes])
        return P.reshape(*batch, 1, 1, c, num_bins, num_bins)
    P = np.stack([[_window_means(*plane, size) for plane in planes] for size in windows])
    return np.moveaxis(P.reshape(len(windows), *batch, c, h, w, num_bins, num_bins), -5, -3)


def _neighbor_means(u, valid, weights):
    """Weighted mean of the valid neighbours inside the image; the pixel itself where there are none."""
    h, w = u.shape
    v = u.copy()
    for y, x in np.ndindex(h, w):
        total = mass = 0.0
        for i, j in _OFFSETS:
            if 0 <= y + i < h and 0 <= x + j < w and valid[y + i, x + j]:
                total += weights[1 + i, 1 + j] * u[y + i, x + j]
                mass += weights[1 + i, 1 + j]
        if mass > 0:
            v[y, x] = total / mass
    return v


def _shares_of_bins(u, num_bins, bandwidth, kernel):
    """K((a - u)/h) / sum_a' K((a' - u)/h), through logarithms so that no kernel underflows before it is normalised."""
    log_k = _LOG_KERNELS[kernel]((np.arange(num_bins) - u[..., None]) / bandwidth)
    k = np.exp(log_k - log_k.max(-1, keepdims=True))
    return k / k.sum(-1, keepdims=True)


def _window_means(joint, valid, size):
    """Mean over the valid pixels in the size x size window at every pixel, cut at the border."""
    means = np.zeros_like(joint)
    for y, x in zip(*np.nonzero(valid), strict=True):
        window = np.s_[max(0, y - size // 2) : y + size // 2 + 1, max(0, x - size // 2) : x + size // 2 + 1]
        means[y, x] = joint[window][valid[window]].mean(0)
    return means


def _mean(values, where):
    if where is None or values.shape != where.shape:
        return values.mean((-3, -2, -1))
    return np.where(where, values, 0).sum((-3, -2, -1)) / where.sum((-3, -2, -1))


def _sum(x):
    return x.sum((-2, -1))


def _log(x):
    return np.log(np.maximum(x, np.finfo(np.float64).tiny))


def _relative(P, Q):
    return _sum(Q * (_log(Q) - _log(P)))


_LOG_KERNELS = {
    "logistic": lambda z: -np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z))),
    "sech": lambda z: np.log(2 / np.pi) - np.abs(z) - np.log1p(np.exp(-2 * np.abs(z))),
    "gaussian": lambda z: -z * z / 2 - np.log(2 * np.pi) / 2,
}
_DIVERGENCES = {
    "hellinger": lambda P, Q: np.sqrt(_sum((np.sqrt(P) - np.sqrt(Q)) ** 2) / 2),
    "relative": _relative,
    "cross": lambda P, Q: -_sum(Q * _log(P)),
    "jensen_shannon": lambda P, Q: (_relative((P + Q) / 2, P) + _relative((P + Q) / 2, Q)) / 2,
}
