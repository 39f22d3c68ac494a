"""A camera in the dark: the low-light photograph that a clean one would have become, with light as the unit.

Images are floating point sRGB in [0, 1], channels last, with any leading axes. In linear light 1 is the level at which
the sensor saturates.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from sel.camera.jpeg import jpeg
from sel.types import Image

Range = tuple[int | float, int | float]


def srgb_to_linear(srgb: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Decode sRGB to linear light.

        L = s / 12.92 where s <= 0.04045, else ((s + 0.055) / 1.055)^2.4

    Args:
      srgb: encoded values; below 0 the straight part goes on.

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
      linear: linear light; below 0 the straight part goes on.

    Returns:
      Encoded values, of the same shape.

    Source: IEC 61966-2-1.
    """
    curved = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.where(linear <= 0.0031308, 12.92 * linear, curved)


def darken(
    key: PRNGKeyArray,
    x0: Image,
    *,
    exposure: ArrayLike,
    shot_noise: ArrayLike,
    read_noise: ArrayLike,
    white_balance: ArrayLike = 1.0,
    cast: ArrayLike = 1.0,
    jpeg_quality: ArrayLike | None = None,
) -> Image:
    """Photograph a scene again with less light, and store it as an 8-bit camera would.

        S  = exposure * linear(x0) / white_balance                       light on the sensor, 1 = saturation
        Y  = S + sqrt(shot_noise S + read_noise^2) N(0, 1)               independent in every pixel and channel
        Z  = cast * white_balance * Y                                    mean cast * exposure * linear(x0)
        mu = jpeg(round(255 srgb(clip(Z, 0, 1))) / 255)

    The sensor counts electrons: with F of them at saturation the Poisson variance of a signal S is S / F, so
    `shot_noise` = 1 / F, and `read_noise` = (electrons of read noise) / F. The Poisson law is taken as Gaussian. A
    sensor sees less red and blue than green; white balance amplifies them, and their noise. In little light it is often
    wrong: that is the `cast`. Noise below black is cut off, as in a file without black offset, so black becomes
    slightly brighter on average. Colour filters and demosaicing, which make real noise correlated, fixed patterns, lens
    and tone curve are left out.

    Args:
      key: random key.
      x0: clean images in [0, 1].
      exposure: fraction of the light that is left, in (0, 1]. As the next two, a number or one per image (`*batch`).
      shot_noise: variance per unit of signal in linear light, at least 0; 2e-4 is a sensor of 5,000 electrons.
      read_noise: standard deviation at black in linear light, at least 0.
      white_balance: gains above 0 that the camera applies, about 2 for red, 1 for green, 1.7 for blue: a number, or
        one per channel (`c`), or per image and channel (`*batch c`).
      cast: factors above 0 by which the gains miss those of x0; shapes as before.
      jpeg_quality: 1 to 100, a number or one per image; without it nothing is compressed.

    Returns:
      The low-light images mu in [0, 1], multiples of 1/255, float32, of x0's shape.

    Raises:
      ValueError: if a parameter is out of range (checked where its value is known, outside `jit` and `vmap`), or if its
        shape does not fit the leading axes.

    Source: the sensor noise of Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data", IEEE TIP 2008; gains before and after the noise as in Brooks et al., "Unprocessing images for learned raw
    denoising", CVPR 2019.
    """
    batch, channels = x0.shape[:-3], x0.shape[-1]
    parameters = {"exposure": exposure, "shot_noise": shot_noise, "read_noise": read_noise}
    light, shot, read = (_per_image(name, value, batch) for name, value in parameters.items())
    gain = _per_channel("white_balance", white_balance, batch, channels)
    signal = light * srgb_to_linear(x0.astype(jnp.float32)) / gain
    deviation = jnp.sqrt(shot * signal + read**2)
    exposed = signal + deviation * jax.random.normal(key, x0.shape, jnp.float32)
    balanced = _per_channel("cast", cast, batch, channels) * gain * exposed
    mu = jnp.round(255 * linear_to_srgb(jnp.clip(balanced, 0, 1))) / 255
    if jpeg_quality is None:
        return mu
    return jpeg(mu, quality=_per_image("jpeg_quality", jpeg_quality, batch)[..., 0, 0, 0])


def sample_camera(
    key: PRNGKeyArray,
    *,
    batch: tuple[int, ...] = (),
    exposure: Range = (0.01, 0.15),
    shot_noise: Range = (1e-4, 4e-3),
    cast: int | float = 0.1,
    jpeg_quality: Range | None = None,
) -> dict[str, Array]:
    """Draw the parameters of `darken`, independently for each image.

        log exposure ~ U,   log shot_noise ~ U,   log read_noise^2 ~ N(2.18 log shot_noise + 1.2, 0.26^2)
        white_balance = (U(1.9, 2.4), 1, U(1.5, 1.9)),   cast = (exp N(0, cast^2), 1, exp N(0, cast^2)),   quality ~ U

    Of LOL v1's photographs, half have 0.014 to 0.037 of the light of their references, nine tenths 0.006 to 0.10; half
    have 0.92 to 1.08 times as much red, and 0.84 to 1.01 times as much blue, against green as the reference has.

    Args:
      key: random key.
      batch: leading axes of the images.
      exposure: least and greatest fraction of light, in (0, 1].
      shot_noise: least and greatest variance per unit of signal, above 0. Brooks et al. go up to 1.2e-2.
      cast: standard deviation of the logarithm of the error in white balance, at least 0.
      jpeg_quality: least and greatest quality, from 1 to 100; without it images are not compressed.

    Returns:
      Keyword arguments of `darken`, for images of three channels.

    Raises:
      ValueError: if a range is out of order or out of bounds.

    Source: Brooks et al., CVPR 2019, for noise and gains; exposures and casts measured on LOL v1.
    """
    if not 0 < exposure[0] <= exposure[1] <= 1:
        raise ValueError(f"exposure must be (least, greatest) with 0 < least <= greatest <= 1, found {exposure}")
    if not 0 < shot_noise[0] <= shot_noise[1] < np.inf:
        raise ValueError(f"shot_noise must be (least, greatest) with 0 < least <= greatest, found {shot_noise}")
    if jpeg_quality is not None and not 1 <= jpeg_quality[0] <= jpeg_quality[1] <= 100:
        raise ValueError(
            f"jpeg_quality must be (least, greatest) with 1 <= least <= greatest <= 100, found {jpeg_quality}"
        )
    if not 0 <= cast < np.inf:
        raise ValueError(f"cast must be finite and at least 0, found {cast}")
    keys = jax.random.split(key, 6)

    def uniform(key: PRNGKeyArray, least: int | float, greatest: int | float, shape: tuple[int, ...] = batch) -> Array:
        return jax.random.uniform(key, shape, minval=least, maxval=greatest)

    log_shot = uniform(keys[1], *np.log(shot_noise))
    log_read = 2.18 * log_shot + 1.2 + 0.26 * jax.random.normal(keys[2], batch)
    red, blue = uniform(keys[3], 1.9, 2.4), uniform(jax.random.fold_in(keys[3], 1), 1.5, 1.9)
    errors = jnp.exp(cast * jax.random.normal(keys[4], (*batch, 2)))
    camera = {
        "exposure": jnp.exp(uniform(keys[0], *np.log(exposure))),
        "shot_noise": jnp.exp(log_shot),
        "read_noise": jnp.exp(log_read / 2),
        "white_balance": jnp.stack([red, jnp.ones(batch), blue], axis=-1),
        "cast": jnp.stack([errors[..., 0], jnp.ones(batch), errors[..., 1]], axis=-1),
    }
    if jpeg_quality is not None:
        camera["jpeg_quality"] = uniform(keys[5], *jpeg_quality)
    return camera


def _per_image(name: str, value: ArrayLike, batch: tuple[int, ...]) -> Float[Array, "*batch 1 1 1"]:
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        if name == "exposure" and not np.all((known > 0) & (known <= 1)):
            raise ValueError(f"exposure must lie in (0, 1], found {value}")
        if name == "jpeg_quality" and not np.all((known >= 1) & (known <= 100)):
            raise ValueError(f"jpeg_quality must lie in 1..100, found {value}")
        if name.endswith("noise") and not np.all((known >= 0) & np.isfinite(known)):
            raise ValueError(f"{name} must be finite and at least 0, found {value}")
    if np.shape(value) not in ((), batch):
        raise ValueError(f"{name} must be a number or of shape {batch}, one per image, found shape {np.shape(value)}")
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), batch)[..., None, None, None]


def _per_channel(name: str, value: ArrayLike, batch: tuple[int, ...], channels: int) -> Float[Array, "*batch 1 1 c"]:
    if not isinstance(value, jax.core.Tracer) and not np.all((np.asarray(value) > 0) & np.isfinite(np.asarray(value))):
        raise ValueError(f"{name} must be finite and above 0, found {value}")
    shapes = ((), (channels,), (*batch, channels))
    if np.shape(value) not in shapes:
        raise ValueError(f"{name} must be a number or of shape {shapes[1]} or {shapes[2]}, found {np.shape(value)}")
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), (*batch, channels))[..., None, None, :]
