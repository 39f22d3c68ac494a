"""Full-reference fidelity, one value per image: PSNR and SSIM on RGB, stated exactly.

Images are floating point, channels last, in [0, max_value], with any leading axes. Nothing is clipped, quantised,
converted to luma or scaled to the reference's mean ("GT-mean") here: the caller decides what is compared.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sel.types import Image, PerImage

_RADIUS = 5
_SIGMA = 1.5


def psnr(a: Image, b: Image, *, max_value: float = 1.0) -> PerImage:
    """Peak signal-to-noise ratio over all pixels and channels of an image together.

        PSNR = 10 log10(max_value^2 / mean_{h,w,c} (a - b)^2)

    One mean squared error over the three channels (not the mean of three channels' PSNRs, and not luma): the "RGB PSNR"
    of restoration tables.

    Args:
      a: images in [0, max_value], any leading axes.
      b: images of the same shape; the two are interchangeable.
      max_value: the white level: 1, or 255 for images in 0..255.

    Returns:
      Decibels, one per image, float32 or wider. Identical images give `inf` (and a zero gradient), and then so does
      a mean over images.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.metrics import psnr
      >>> image = jnp.full((2, 16, 16, 3), 0.5)
      >>> [round(float(value), 2) for value in psnr(image + 0.1, image)]
      [20.0, 20.0]
    """
    a, b = _checked(a, b)
    error = jnp.mean(jnp.square(a - b), axis=(-3, -2, -1))
    identical = error == 0
    decibels = 10 * jnp.log10(max_value**2 / jnp.where(identical, 1.0, error))
    return jnp.where(identical, jnp.inf, decibels)


def ssim(a: Image, b: Image, *, max_value: float = 1.0, k1: float = 0.01, k2: float = 0.03) -> PerImage:
    """Mean structural similarity with the original's Gaussian window, per channel, then averaged.

        SSIM = mean (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_aa + s_bb + C2)),  C_i = (k_i max_value)^2

    with m, s the means and (population, not sample) covariances under an 11 x 11 Gaussian of sigma 1.5. Only windows
    wholly inside the image count (no padding); channels are treated separately and averaged (RGB, not luma). It is
    `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.
    Cost: linear in the pixels, separable window; memory of a few images.

    Args:
      a: images in [0, max_value], at least 11 x 11, any leading axes.
      b: images of the same shape; the two are interchangeable.
      max_value: the white level: 1, or 255 for images in 0..255.
      k1: stabiliser of the means.
      k2: stabiliser of the covariances.

    Returns:
      Similarity in [-1, 1], one per image, float32 or wider; identical images give 1.

    Raises:
      TypeError: if an input is not floating point.
      ValueError: if the shapes differ, or an image is smaller than the window.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    IEEE TIP 2004. Departure: no automatic down-sampling of large images.

    Examples:
      >>> import jax
      >>> from sel.metrics import ssim
      >>> image = jax.random.uniform(jax.random.key(0), (16, 16, 3))
      >>> round(float(ssim(image, image)), 4), bool(ssim(image, image[::-1]) < 0.5)
      (1.0, True)
    """
    a, b = _checked(a, b)
    if min(a.shape[-3:-1]) < 2 * _RADIUS + 1:
        raise ValueError(f"ssim needs images of at least 11 x 11 pixels, found {a.shape[-3]} x {a.shape[-2]}")
    # Covariances do not depend on the origin: from mid-grey, E[x^2] - E[x]^2 cancels four times fewer digits.
    grey = 0.5 * max_value
    a, b = a - grey, b - grey
    mean_a, mean_b, power, product = (_window_mean(x) for x in (a, b, a * a + b * b, a * b))
    covariance = product - mean_a * mean_b
    variances = power - mean_a * mean_a - mean_b * mean_b
    mean_a, mean_b = mean_a + grey, mean_b + grey
    c1, c2 = (k1 * max_value) ** 2, (k2 * max_value) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return jnp.mean(luminance * structure, axis=(-3, -2, -1))


def _checked(a: Image, b: Image) -> tuple[Image, Image]:
    """Return both images in float32 or wider, or raise."""
    for name, image in (("a", a), ("b", b)):
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point, found {image.dtype}; divide 8-bit images by 255")
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape, found {a.shape} and {b.shape}")
    dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    return a.astype(dtype), b.astype(dtype)


def _window_mean(x: Image) -> Float[Array, "*batch h_inside w_inside c"]:
    """Gaussian mean in every window inside the image: shifted multiply-adds, along columns, then along rows."""
    *batch, height, width, channels = x.shape
    height, width = height - 2 * _RADIUS, width - 2 * _RADIUS
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    weights = (weights / weights.sum()).tolist()
    # Pixels and channels as one axis: an innermost axis of three does not vectorise.
    x = x.reshape(*batch, height + 2 * _RADIUS, -1)
    columns = sum(weight * x[..., i * channels : (i + width) * channels] for i, weight in enumerate(weights))
    rows = sum(weight * columns[..., i : i + height, :] for i, weight in enumerate(weights))
    return rows.reshape(*batch, height, width, channels)
