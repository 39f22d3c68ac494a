"""Spatial entropy of images and the losses made of it: the door of `sel.entropy`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sel.entropy import density
from sel.entropy.divergence import DIVERGENCES, PUBLISHED, SHANNON, Divergence
from sel.entropy.inputs import Inputs, Pixels, Windows, choose, prepare
from sel.entropy.neighborhood import blur, pad_planes, reach, window_sums

_DIFFERENCE = "entropy_difference"


def spatial_entropy_loss(
    predictions: Pixels,
    targets: Pixels,
    *,
    divergence: str = "hellinger",
    num_bins: int = 32,
    bandwidth: Any = 0.5,
    kernel: str = "logistic",
    windows: Windows = (1, 3, 5),
    window_shape: str = "box",
    neighbor_weights: Pixels | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    variant: str = "corrected",
    gray: bool = False,
    where: Pixels | None = None,
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
      predictions: images `[*batch, h, w, c]`, any floating dtype; sums are kept in float32 or better.
      targets: images of the same shape and dtype.
      divergence: `hellinger`, `relative`, `cross`, `jensen_shannon`, or `entropy_difference`: |H(P) - H(Q)|.
      num_bins: bins L on each axis, at least 2.
      bandwidth: kernel width h, in bins, or `"silverman"`: 1.06 sigma n^(-1/5) for each channel of each target, with
        the standard deviation sigma of its n pixels, and at least 0.1. No gradient flows to it.
      kernel: `logistic` (s(z) s(-z)), `sech` (1 / (pi cosh z)) or `gaussian`.
      windows: odd window sizes in pixels, each once, or `"global"` for one distribution of the whole image.
      window_shape: `box` weights the pixels of a window equally, `gaussian` with a standard deviation of a quarter of
        its size.
      neighbor_weights: 3 x 3 weights of the neighbours, divided by their sum; the centre is not used. None weights
        them equally; `sample_neighbor_weights` draws them. They should not be negative. Gradients flow to them.
      value_range: values of the first and the last bin. What lies outside is clipped and has no gradient: widen it
        to cover noise.
      variant: `corrected`, or `published` for parity with the released PyTorch code: kernels not normalised over the
        bins, divided by 0.5 h; neighbour means over all channels and zeros beyond the border; windows divided by k^2
        at borders too; 1e-10 inside logarithms; `cross` with its arguments swapped, -sum P log Q.
      gray: compare the luminance (0.299, 0.587, 0.114) of RGB images instead of their channels.
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
    chosen = choose(
        "divergence", divergence, {**(PUBLISHED if variant == "published" else DIVERGENCES), _DIFFERENCE: None}
    )
    inputs = prepare(
        {"predictions": predictions, "targets": targets},
        num_bins=num_bins,
        bandwidth=bandwidth,
        kernel=kernel,
        windows=windows,
        window_shape=window_shape,
        neighbor_weights=neighbor_weights,
        value_range=value_range,
        variant=variant,
        gray=gray,
        where=where,
        implementation=implementation,
    )
    if chosen is None:
        values = [
            _absolute(jnp.subtract(*jnp.split(entropies, 2))) for entropies in _window_values(inputs.each(), SHANNON)
        ]
    else:
        values = _window_values(inputs, chosen)
    return _mean(values, inputs, return_map)


def combined_loss(
    predictions: Pixels,
    targets: Pixels,
    *,
    entropy: float = 1.0,
    l1: float = 0.0,
    blurred_l1: float = 0.0,
    blur_sigma: float = 2.0,
    **options: Any,
) -> Float[Array, "..."]:
    """Weighted sum: entropy * spatial_entropy_loss + l1 * mean |x - y| + blurred_l1 * mean |g * x - g * y|.

    The entropy loss is blind to where inside its windows a pixel is; a little l1 ties the image down, and l1 of images
    blurred by a Gaussian g its colours, without smoothing its details.

    Args:
      predictions: as in `spatial_entropy_loss`.
      targets: as in `spatial_entropy_loss`.
      entropy: weight of the spatial-entropy loss; terms with weight 0 are not computed.
      l1: weight of the mean absolute difference.
      blurred_l1: weight of the mean absolute difference of the blurred images.
      blur_sigma: standard deviation of the blur, in pixels.
      **options: of `spatial_entropy_loss`, but not `return_map`; `where` masks every term.

    Returns:
      One value per image.

    Raises:
      TypeError: as `spatial_entropy_loss`, or for an unknown option.
      ValueError: as `spatial_entropy_loss`, or if `blur_sigma` is not positive.
    """
    if not blur_sigma > 0:
        raise ValueError(f"blur_sigma must be a positive number of pixels, found {blur_sigma!r}")
    if "return_map" in options:
        raise TypeError("combined_loss has no option return_map: its terms are means over the image")
    where = options.get("where")
    prepare({"predictions": predictions, "targets": targets}, where=where)
    dtype = jnp.promote_types(predictions.dtype, jnp.float32)
    difference = jnp.asarray(predictions, dtype) - jnp.asarray(targets, dtype)
    mask = jnp.ones_like(difference) if where is None else jnp.asarray(where, dtype)
    difference = jnp.where(mask > 0, difference, 0)
    count = jnp.maximum(mask.sum((-3, -2, -1)), 1)
    total = jnp.zeros(predictions.shape[:-3], dtype)
    if entropy:
        total += entropy * spatial_entropy_loss(predictions, targets, **options).astype(dtype)
    if l1:
        total += l1 * _absolute(difference).sum((-3, -2, -1)) / count
    if blurred_l1:
        blurred = blur(difference, blur_sigma) / jnp.maximum(blur(mask, blur_sigma), 1e-6)
        total += blurred_l1 * (_absolute(blurred) * mask).sum((-3, -2, -1)) / count
    return total.astype(predictions.dtype)


def spatial_entropy(
    images: Pixels,
    *,
    num_bins: int = 32,
    bandwidth: Any = 0.5,
    kernel: str = "logistic",
    windows: Windows = (1, 3, 5),
    window_shape: str = "box",
    neighbor_weights: Pixels | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    variant: str = "corrected",
    gray: bool = False,
    where: Pixels | None = None,
    return_map: bool = False,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    """Two-dimensional Shannon entropy H = -sum_ab P log P, in nats: the mean over pixels, channels and windows.

    Arguments, result and errors are those of `spatial_entropy_loss`. H lies between that of the kernel itself and
    2 log L.
    """
    inputs = prepare(
        {"images": images},
        num_bins=num_bins,
        bandwidth=bandwidth,
        kernel=kernel,
        windows=windows,
        window_shape=window_shape,
        neighbor_weights=neighbor_weights,
        value_range=value_range,
        variant=variant,
        gray=gray,
        where=where,
        implementation=implementation,
    )
    return _mean(_window_values(inputs, SHANNON), inputs, return_map)


def joint_density(
    images: Pixels,
    *,
    num_bins: int = 32,
    bandwidth: Any = 0.5,
    kernel: str = "logistic",
    windows: Windows = (1, 3, 5),
    window_shape: str = "box",
    neighbor_weights: Pixels | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    variant: str = "corrected",
    gray: bool = False,
    where: Pixels | None = None,
) -> Float[Array, "..."]:
    """The joint density P_k[a, b](q) itself, to look at or to test with: L^2 values for each pixel, channel and window.

    Arguments and errors are those of `spatial_entropy_loss`.

    Returns:
      `[k, *batch, h, w, c, l, l]`: window, image axes, intensity bin, neighbour bin. For `windows="global"`,
      `[*batch, c, l, l]`.
    """
    inputs = prepare(
        {"images": images},
        num_bins=num_bins,
        bandwidth=bandwidth,
        kernel=kernel,
        windows=windows,
        window_shape=window_shape,
        neighbor_weights=neighbor_weights,
        value_range=value_range,
        variant=variant,
        gray=gray,
        where=where,
    )
    estimator, (field,), bins = inputs.estimator, inputs.fields, (num_bins, num_bins)
    *batch, h, w, c = inputs.shape
    if inputs.whole:
        densities = density.global_densities((field,), inputs.mask, inputs.bandwidth, estimator=estimator)
        return densities[0].reshape(*batch, c, *bins).astype(images.dtype)
    margin = reach(estimator.windows)
    mask = pad_planes(inputs.mask, margin)
    shares = estimator.shares(mask, estimator.windows)
    u, v = (jax.vmap(estimator.weights)(pad_planes(x, margin), inputs.bandwidth) for x in field)
    sums = window_sums((u * mask[..., None])[..., :, None] * v[..., None, :], estimator.windows, (-4, -3))
    stacked = jnp.stack([share[..., None, None] * total for share, total in zip(shares, sums, strict=True)])
    return jnp.moveaxis(stacked.reshape(len(sums), *batch, c, h, w, *bins), -5, -3).astype(images.dtype)


def _absolute(x: Array) -> Array:
    """Absolute value with slope 0, not 1, at 0."""
    return x * jnp.sign(x)


def _window_values(inputs: Inputs, divergence: Divergence) -> list[Array]:
    """The divergence at every pixel of every plane, for each window; of every plane for the global one."""
    options = {"estimator": inputs.estimator}
    if inputs.whole:
        densities = density.global_densities(inputs.fields, inputs.mask, inputs.bandwidth, **options)
        return [divergence.finish(divergence.term(*densities).sum((-2, -1)))]
    totals = inputs.density_sums(inputs.fields, inputs.mask, inputs.bandwidth, divergence=divergence, **options)
    return [divergence.finish(total) for total in totals]


def _mean(values: list[Array], inputs: Inputs, return_map: bool) -> Array:
    *batch, h, w, c = inputs.shape
    mean = functools.reduce(jnp.add, values) / len(values)
    if inputs.whole:
        if return_map:
            raise ValueError('return_map=True has no meaning for windows="global": an image has one value')
        return mean.reshape(*batch, c).mean(-1).astype(inputs.dtype)
    mean, mask = (jnp.moveaxis(x.reshape(*batch, c, h, w), -3, -1) for x in (mean * inputs.mask, inputs.mask))
    if not return_map:
        mean = mean.sum((-3, -2, -1)) / jnp.maximum(mask.sum((-3, -2, -1)), 1)
    return mean.astype(inputs.dtype)
