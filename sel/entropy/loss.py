"""Spatial entropy of images and the losses made of it: the door of `sel.entropy`."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from sel.entropy import density, sparse
from sel.entropy.density import Estimator, Field
from sel.entropy.divergence import DIVERGENCES, PUBLISHED, SHANNON
from sel.entropy.kernels import KERNELS
from sel.entropy.neighborhood import clip, neighbor_mean, neighbor_sum, pad_planes, window_sums

Windows = Sequence[int] | Literal["global"]

_IMPLEMENTATIONS = {"dense": density.density_sums, "sparse": sparse.density_sums}
_VARIANTS = ("corrected", "published")


def spatial_entropy_loss(
    predictions: Float[Array, "*batch h w c"],
    targets: Float[Array, "*batch h w c"],
    *,
    divergence: str = "hellinger",
    num_bins: int = 32,
    bandwidth: Any = 0.5,
    kernel: str = "logistic",
    windows: Windows = (1, 3, 5),
    neighbor_weights: Float[Array, "3 3"] | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    variant: str = "corrected",
    where: Bool[Array, "*batch h w c"] | None = None,
    return_map: bool = False,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    r"""Divergence between the local distributions of (intensity, neighbour mean) of two images.

    For each pixel q and each window size k, with u the intensity and v the mean of the eight neighbours, in bin units,

        p_a(u) = K((a - u) / h) / sum_a' K((a' - u) / h)
        P_k[a, b](q) = mean over q' in the k x k window at q of p_a(u(q')) p_b(v(q'))

        hellinger       sqrt(sum_ab (sqrt P - sqrt Q)^2 / 2)                         in [0, 1]
        relative        sum_ab Q log(Q / P)                                          at least 0
        cross           -sum_ab Q log P                                              least, but not 0, at equality
        jensen_shannon  sum_ab (P log(P / M) + Q log(Q / M)) / 2,  M = (P + Q) / 2   in [0, log 2]

    with P from the prediction and Q from the target. The loss is the mean over pixels, channels and windows. It is 0
    (but for `cross`) with zero gradient for equal images, and its gradient is finite everywhere. Logarithms are
    natural and see densities through a floor of 1e-30, below which a density has no gradient.

    Args:
      predictions: images, channels last, any leading axes, any floating dtype; sums are kept in float32 or better.
      targets: images of the same shape and dtype.
      divergence: `hellinger`, `relative`, `cross` or `jensen_shannon`.
      num_bins: bins L on each axis, at least 2.
      bandwidth: kernel width h, in bins.
      kernel: `logistic` (s(z) s(-z)), `sech` (1 / (pi cosh z)) or `gaussian`.
      windows: odd window sizes in pixels, or `"global"` for one distribution of the whole image.
      neighbor_weights: 3 x 3 weights of the neighbours, divided by their sum; the centre is not used. None weights
        them equally. They should not be negative. Gradients flow to them.
      value_range: values of the first and the last bin. What lies outside is clipped and has no gradient: widen it
        to cover noise.
      variant: `corrected`, or `published` for parity with the released PyTorch code: kernels not normalised over the
        bins, divided by 0.5 h; neighbour means over all channels and zeros beyond the border; windows divided by k^2
        at borders too; 1e-10 inside logarithms; `cross` with its arguments swapped, -sum P log Q.
      where: True for the pixels that count; others enter neither means, windows nor the average, and may hold NaN.
      return_map: return the divergence of every pixel and channel (mean over windows) instead of the mean. Not for
        `"global"`.
      implementation: `sparse` (small tiles, skips empty bins; for forward-mode derivatives, `jax.jvp`, take `dense`),
        `dense` (all bins of whole planes) or None: sparse on CPU, dense elsewhere.

    Returns:
      One value per image, of shape `batch` and the dtype of the inputs, or the map, of the shape of the inputs.

    Raises:
      TypeError: if an image is not floating point.
      ValueError: if shapes or dtypes differ, or an option has no such value.

    Cost: linear in pixels; at most L^2 for each pixel and window. Temporary memory is linear in L.

    Source: Lian et al., "Equipping Diffusion Models with Differentiable Spatial Entropy for Low-Light Image
      Enhancement", CVPRW 2024,
    arXiv 2404.09735.
    """
    _check_images({"predictions": predictions, "targets": targets, "where": where})
    estimator = _estimator(num_bins, kernel, windows, variant)
    chosen = _choose("divergence", divergence, PUBLISHED if estimator.published else DIVERGENCES)
    options = (bandwidth, neighbor_weights, value_range, where, return_map, implementation, windows == "global")
    return _measure((predictions, targets), estimator, chosen, *options)


def spatial_entropy(
    images: Float[Array, "*batch h w c"],
    *,
    num_bins: int = 32,
    bandwidth: Any = 0.5,
    kernel: str = "logistic",
    windows: Windows = (1, 3, 5),
    neighbor_weights: Float[Array, "3 3"] | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    variant: str = "corrected",
    where: Bool[Array, "*batch h w c"] | None = None,
    return_map: bool = False,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    """Two-dimensional Shannon entropy H = -sum_ab P log P, in nats: the mean over pixels, channels and windows.

    Arguments, result and errors are those of `spatial_entropy_loss`. H lies between that of the kernel itself and 2
    log L.
    """
    _check_images({"images": images, "where": where})
    estimator = _estimator(num_bins, kernel, windows, variant)
    options = (bandwidth, neighbor_weights, value_range, where, return_map, implementation, windows == "global")
    return _measure((images,), estimator, SHANNON, *options)


def joint_density(
    images: Float[Array, "*batch h w c"],
    *,
    num_bins: int = 32,
    bandwidth: Any = 0.5,
    kernel: str = "logistic",
    windows: Windows = (1, 3, 5),
    neighbor_weights: Float[Array, "3 3"] | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    variant: str = "corrected",
    where: Bool[Array, "*batch h w c"] | None = None,
) -> Float[Array, "..."]:
    """The joint density P_k[a, b](q) itself, to look at or to test with: L^2 values for each pixel, channel and window.

    Arguments and errors are those of `spatial_entropy_loss`.

    Returns:
      `[k, *batch, h, w, c, l, l]`: window, image axes, intensity bin, neighbour bin. For `windows="global"`,
      `[*batch, c, l, l]`.
    """
    _check_images({"images": images, "where": where})
    estimator = _estimator(num_bins, kernel, windows, variant)
    *batch, h, w, c = images.shape
    (field,), mask, widths = _fields((images,), estimator, bandwidth, neighbor_weights, value_range, where)
    if windows == "global":
        (result,) = density.global_densities((field,), mask, widths, estimator=estimator)
        return result.reshape(*batch, c, num_bins, num_bins).astype(images.dtype)
    margin = max(estimator.windows) // 2
    padded = pad_planes(mask, margin)
    shares = estimator.shares(padded, estimator.windows)
    u, v = (jax.vmap(estimator.weights)(pad_planes(x, margin), widths) for x in field)
    outer = (u * padded[..., None])[..., :, None] * v[..., None, :]
    sums = window_sums(outer, estimator.windows, (-4, -3))
    densities = jnp.stack([share[..., None, None] * total for share, total in zip(shares, sums, strict=True)])
    densities = densities.reshape(len(sums), *batch, c, h, w, num_bins, num_bins)
    return jnp.moveaxis(densities, -5, -3).astype(images.dtype)


def _measure(
    images, estimator, divergence, bandwidth, neighbor_weights, value_range, where, return_map, implementation, whole
):
    fields, mask, widths = _fields(images, estimator, bandwidth, neighbor_weights, value_range, where)
    *batch, h, w, c = images[0].shape
    if whole:
        if return_map:
            raise ValueError(
                'return_map=True has no meaning for windows="global": there is one value for the whole image'
            )
        densities = density.global_densities(fields, mask, widths, estimator=estimator)
        values = divergence.finish(divergence.term(*densities).sum((-2, -1)))
        return values.reshape(*batch, c).mean(-1).astype(images[0].dtype)
    if implementation is None:
        implementation = "sparse" if jax.default_backend() == "cpu" else "dense"
    density_sums = _choose("implementation", implementation, _IMPLEMENTATIONS)
    totals = density_sums(fields, mask, widths, estimator=estimator, divergence=divergence)
    values = sum(divergence.finish(total) for total in totals) / len(totals) * mask
    values, mask = (jnp.moveaxis(x.reshape(*batch, c, h, w), -3, -1) for x in (values, mask))
    if not return_map:
        values = values.sum((-3, -2, -1)) / jnp.maximum(mask.sum((-3, -2, -1)), 1)
    return values.astype(images[0].dtype)


def _fields(images, estimator: Estimator, bandwidth, neighbor_weights, value_range, where):
    """(u, v) of every image as planes [n, h, w] in bin units, the mask, and the bandwidth of each plane."""
    dtype = jnp.promote_types(images[0].dtype, jnp.float32)
    weights = _neighbor_weights(neighbor_weights, dtype)
    mask = jnp.ones(images[0].shape, dtype) if where is None else jnp.asarray(where, dtype)
    mask = _planes(mask)
    if jnp.ndim(bandwidth) != 0 or (not isinstance(bandwidth, jax.core.Tracer) and not float(bandwidth) > 0):
        raise ValueError(f"bandwidth must be one positive number of bins, found {bandwidth!r}")
    fields = tuple(_field(x, where, mask, weights, value_range, estimator) for x in images)
    return fields, mask, jnp.full(mask.shape[:1], lax.stop_gradient(bandwidth), dtype)


def _field(image, where, mask, weights, value_range, estimator) -> Field:
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must be (low, high) with low < high, found {value_range!r}")
    x = image.astype(mask.dtype)
    x = x if where is None else jnp.where(where, x, low)
    u = _planes((clip(x, low, high) - low) * ((estimator.num_bins - 1) / (high - low)))
    if estimator.published:
        return u, neighbor_sum(u * mask, weights) / (weights.sum() * image.shape[-1])
    return u, neighbor_mean(u, mask, weights)


def _planes(images):
    return jnp.moveaxis(images, -1, -3).reshape(-1, *images.shape[-3:-1])


def _neighbor_weights(weights, dtype):
    if weights is None:
        weights = jnp.ones((3, 3), dtype)
    elif weights.shape != (3, 3):
        raise ValueError(f"neighbor_weights must have shape (3, 3), found {weights.shape}")
    return jnp.asarray(weights, dtype).at[1, 1].set(0)


def _estimator(num_bins, kernel, windows, variant) -> Estimator:
    _choose("kernel", kernel, KERNELS)
    _choose("variant", variant, _VARIANTS)
    if not isinstance(num_bins, (int, np.integer)) or num_bins < 2:
        raise ValueError(f"num_bins must be a whole number of at least 2, found {num_bins!r}")
    if windows == "global":
        sizes: tuple[int, ...] = (1,)
    else:
        valid = not isinstance(windows, str) and len(windows) > 0
        if not valid or any(not isinstance(k, (int, np.integer)) or k < 1 or k % 2 == 0 for k in windows):
            raise ValueError(f'windows must be odd sizes of at least 1, or "global", found {windows!r}')
        sizes = tuple(int(k) for k in windows)
    return Estimator(int(num_bins), kernel, sizes, variant == "published")


def _choose(argument: str, value: str, choices):
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, found {value!r}")
    return choices[value] if isinstance(choices, dict) else value


def _check_images(arguments: dict[str, Any]) -> None:
    (first, image), *others = ((name, x) for name, x in arguments.items() if x is not None)
    for name, x in arguments.items():
        if name != "where" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point in [0, 1], found {x.dtype}")
    if image.ndim < 3:
        raise ValueError(f"{first} must have shape [..., h, w, c], found {image.shape}")
    for name, x in others:
        if x.shape != image.shape:
            raise ValueError(f"{name} must have the shape of {first}, {image.shape}, found {x.shape}")
        if name != "where" and x.dtype != image.dtype:
            raise ValueError(f"{name} must have the dtype of {first}, {image.dtype}, found {x.dtype}")
