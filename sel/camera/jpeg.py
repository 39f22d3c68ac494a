"""What JPEG does to an image, in JAX: colours, cosine transform of 8 x 8 blocks, quantisation, and back."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sel.types import Image

# ITU-T T.81, tables K.1 and K.2: steps at quality 50 of brightness and of colour, by vertical and horizontal frequency.
_STEPS_Y = """
16 11 10 16 24 40 51 61   12 12 14 19 26 58 60 55   14 13 16 24 40 57 69 56   14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77   24 35 55 64 81 104 113 92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103 99
"""
_STEPS_C = """
17 18 24 47 99 99 99 99   18 21 26 66 99 99 99 99   24 26 56 99 99 99 99 99   47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99   99 99 99 99 99 99 99 99
"""
_STEPS = np.stack([np.array(text.split(), np.float32).reshape(8, 8) for text in (_STEPS_Y, _STEPS_C, _STEPS_C)], -1)
# As blocks are: batch, rows of blocks, rows in a block, columns of blocks, columns in a block, channels.
_STEPS = _STEPS.reshape(1, 1, 8, 1, 8, 3)

# JFIF: Y, Cb, Cr from R, G, B, and back.
_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_RGB = np.linalg.inv(_YCC.astype(np.float64)).astype(np.float32)
_CENTRE = np.array([128, 0, 0], np.float32).reshape(1, 1, 1, 1, 1, 3)  # the matrix centres the colours

_FREQUENCY, _PLACE = np.mgrid[:8, :8]
_COSINES = np.cos((2 * _PLACE + 1) * _FREQUENCY * np.pi / 16) * np.where(_FREQUENCY == 0, np.sqrt(1 / 8), 1 / 2)
_COSINES = _COSINES.astype(np.float32)


def jpeg(image: Image, *, quality: ArrayLike) -> Image:
    """Compress and decompress.

        F = DCT of a block of 255 image - 128;   step s(q) = clip(floor((K a(q) + 50) / 100), 1, 255)
        a(q) = 5000 / q below q = 50, else 200 - 2 q;   result = clip(round(DCT^-1(s round(F / s)) + 128), 0, 255) / 255

    Brightness and colours have the same resolution (4:4:4); many cameras store colours at half of it. Entropy coding
    loses nothing and is left out. libjpeg computes in integers: its pixels differ from these by a level at times.

    Args:
      image: sRGB images in [0, 1] with three channels.
      quality: 1 to 100 on the scale of libjpeg, a number or one per image (`*batch`).

    Returns:
      The images, multiples of 1/255, of the same shape, float32.

    Raises:
      ValueError: if the image does not have three channels.

    Source: ITU-T T.81 (1992); the scale of qualities is that of the Independent JPEG Group's software.
    """
    height, width, channels = image.shape[-3:]
    if channels != 3:
        raise ValueError(f"image must have 3 channels, found shape {image.shape}")
    batch = image.shape[:-3]
    quality = jnp.broadcast_to(jnp.floor(jnp.asarray(quality, jnp.float32)), batch).reshape(-1, 1, 1, 1, 1, 1)
    scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    steps = jnp.clip(jnp.floor((_STEPS * scale + 50) / 100), 1, 255)

    levels = jnp.round(255 * image.astype(jnp.float32)).reshape(-1, height, width, 3)
    rows, columns = -(-height // 8), -(-width // 8)
    levels = jnp.pad(levels, [(0, 0), (0, 8 * rows - height), (0, 8 * columns - width), (0, 0)], mode="edge")
    blocks = levels.reshape(-1, rows, 8, columns, 8, 3)
    centred = jnp.round(blocks @ _YCC.T) - _CENTRE
    frequencies = jnp.einsum("ui,vj,byixjc->byuxvc", _COSINES, _COSINES, centred)
    kept = steps * jnp.round(frequencies / steps)
    decoded = jnp.round(jnp.einsum("ui,vj,byuxvc->byixjc", _COSINES, _COSINES, kept))
    restored = ((decoded + _CENTRE) @ _RGB.T).reshape(*batch, 8 * rows, 8 * columns, 3)
    return jnp.clip(jnp.round(restored[..., :height, :width, :]), 0, 255) / 255
