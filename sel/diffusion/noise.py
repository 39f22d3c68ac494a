"""Standard normal draws that belong to places in an image, whatever part of it is computed at a time."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from sel.diffusion.checks import as_key

BLOCK = 64


def noise_field(
    key: PRNGKeyArray, shape: tuple[int, ...], *, first_block: tuple[ArrayLike, ArrayLike] = (0, 0)
) -> Float[Array, "b h w c"]:
    """Draw standard normal noise that depends on the key, the index of the image and the place of the pixel alone.

    Parts of a large image are so drawn without the rest of it.

    Args:
      key: random key.
      shape: `(b, h, w, c)`.
      first_block: the first pixel of the draws is that in row `first_block[0] * BLOCK` and column
        `first_block[1] * BLOCK` of the image.

    Returns:
      The draws, float32.

    Examples:
      >>> import jax
      >>> from sel.diffusion import noise_field
      >>> small = noise_field(jax.random.key(0), (1, 8, 8, 3))
      >>> large = noise_field(jax.random.key(0), (1, 16, 16, 3))
      >>> bool((large[:, :8, :8] == small).all())
      True
    """
    b, h, w, c = shape
    (row, column), key = first_block, as_key(key)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = fold(key, jnp.arange(b))
    keys = jax.vmap(fold, (0, None))(keys, row + jnp.arange(-(-h // BLOCK)))
    keys = jax.vmap(jax.vmap(fold, (0, None)), (0, None))(keys, column + jnp.arange(-(-w // BLOCK)))
    blocks = jax.vmap(lambda key: jax.random.normal(key, (BLOCK, BLOCK, c)))(keys.reshape(-1))
    blocks = blocks.reshape(*keys.shape, BLOCK, BLOCK, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, keys.shape[1] * BLOCK, keys.shape[2] * BLOCK, c)[:, :h, :w]
