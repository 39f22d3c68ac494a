"""A camera in the dark: the low-light photograph that a clean one would have become, with light as the unit.

Images are floating point sRGB in [0, 1], channels last, with any leading axes. In linear light 1 is the level at which
the sensor saturates.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from sel.types import Image


def srgb_to_linear(srgb: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Decode sRGB to linear light.

        L = s / 12.92 where s <= 0.04045, else ((s + 0.055) / 1.055)^2.4

    Args:
        srgb: Encoded values; below 0 the straight part goes on.

    Returns:
        Linear light, of the same shape.

    Source: IEC 61966-2-1.
    """
    # Both branches are evaluated: the power must not see what it would turn into a NaN gradient.
    curved = ((jnp.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4
    return jnp.where(srgb <= 0.04045, srgb / 12.92, curved)


def linear_to_srgb(linear: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Encode linear light as sRGB, the inverse of `srgb_to_linear`.

        s = 12.92 L where L <= 0.0031308, else 1.055 L^(1/2.4) - 0.055

    Args:
        linear: Linear light; below 0 the straight part goes on.

    Returns:
        Encoded values, of the same shape.

    Source: IEC 61966-2-1.
    """
    curved = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.where(linear <= 0.0031308, 12.92 * linear, curved)


def darken(key: PRNGKeyArray, x0: Image, *, exposure: ArrayLike, shot_noise: ArrayLike, read_noise: ArrayLike) -> Image:
    """Photograph a scene again with less light, and store it as an 8-bit camera would.

        S  = exposure * linear(x0)                                       light on the sensor, 1 = saturation
        Y  = S + sqrt(shot_noise S + read_noise^2) N(0, 1)               independent in every pixel and channel
        mu = round(255 srgb(clip(Y, 0, 1))) / 255

    The sensor counts electrons: with F of them at saturation the Poisson variance of a signal S is S / F, so
    `shot_noise` = 1 / F, and `read_noise` = (electrons of read noise) / F. The Poisson law is taken as Gaussian. Noise
    below black is cut off, as in a file without black offset, so black becomes slightly brighter on average. Colour
    filters, demosaicing, white balance and compression, which make real noise correlated, are left out.

    Args:
        key: Random key.
        x0: Clean images in [0, 1].
        exposure: Fraction of the light that is left, in (0, 1]. As the next two, a number or one per image (`*batch`).
        shot_noise: Variance per unit of signal in linear light, at least 0; 2e-4 is a sensor of 5,000 electrons.
        read_noise: Standard deviation at black in linear light, at least 0.

    Returns:
        The low-light images mu in [0, 1], multiples of 1/255, float32, of x0's shape.

    Raises:
        ValueError: A parameter is out of its range (checked where it is known, that is outside `jit` and `vmap`) or its
            shape does not fit the leading axes.

    Source: the sensor noise of Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data", IEEE TIP 2008.
    """
    parameters = {"exposure": exposure, "shot_noise": shot_noise, "read_noise": read_noise}
    light, shot, read = (_per_image(name, value, x0.shape[:-3]) for name, value in parameters.items())
    signal = light * srgb_to_linear(x0.astype(jnp.float32))
    deviation = jnp.sqrt(shot * signal + read**2)
    exposed = signal + deviation * jax.random.normal(key, x0.shape, jnp.float32)
    return jnp.round(255 * linear_to_srgb(jnp.clip(exposed, 0, 1))) / 255


def _per_image(name: str, value: ArrayLike, batch: tuple[int, ...]) -> Float[Array, "*batch 1 1 1"]:
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        if name == "exposure" and not np.all((known > 0) & (known <= 1)):
            raise ValueError(f"exposure must lie in (0, 1], got {value}")
        if name != "exposure" and not np.all((known >= 0) & np.isfinite(known)):
            raise ValueError(f"{name} must be finite and at least 0, got {value}")
    if np.shape(value) not in ((), batch):
        raise ValueError(f"{name} must be a number or of shape {batch}, one per image, got shape {np.shape(value)}")
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), batch)[..., None, None, None]
