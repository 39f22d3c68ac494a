"""Standard normal draws that belong to places in an image, whatever part of it is computed at a time."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

BLOCK = 64


def noise_field(key: PRNGKeyArray, shape: tuple[int, ...], *, first_block: ArrayLike = 0) -> Float[Array, "b h w c"]:
    """Draw standard normal noise that depends on the key, the index of the image and the place of the pixel alone.

    Rows of a large image are so drawn without the rest of it, and a margin changes nothing of what lies inside.

    Args:
        key: Random key.
        shape: `(b, h, w, c)`.
        first_block: The first row of the draws is row `first_block * BLOCK` of the image.

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
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = fold(key, jnp.arange(b))
    keys = jax.vmap(fold, (0, None))(keys, first_block + jnp.arange(-(-h // BLOCK)))
    keys = jax.vmap(jax.vmap(fold, (0, None)), (0, None))(keys, jnp.arange(-(-w // BLOCK)))
    blocks = jax.vmap(lambda key: jax.random.normal(key, (BLOCK, BLOCK, c)))(keys.reshape(-1))
    blocks = blocks.reshape(*keys.shape, BLOCK, BLOCK, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, keys.shape[1] * BLOCK, keys.shape[2] * BLOCK, c)[:, :h, :w]
