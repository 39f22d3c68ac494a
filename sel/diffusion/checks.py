"""Checks of arguments. Values are looked at where they can be seen: not inside a compiled program."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def as_key(key: Any) -> PRNGKeyArray:
    """A random key of today's kind, from one of `jax.random.key` or, as numbers, of `jax.random.PRNGKey`.

    Raises:
      ValueError: if it is neither.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ():
        return key
    shape = jax.eval_shape(jax.random.PRNGKey, 0).shape
    if dtype != jnp.uint32 or key.shape != shape:
        raise ValueError(f"key must be one random key, such as jax.random.key(0), found {key!r}")
    return jax.random.wrap_key_data(key)


def as_count(name: str, value: Any, most: int | None = None, *, why: str = "") -> int:
    """A whole number from 1 to `most`.

    Raises:
      ValueError: if it is none.
    """
    try:
        number = operator.index(value) if not isinstance(value, (bool, np.bool_)) else 0
    except TypeError:
        number = 0
    if number < 1 or (most is not None and number > most):
        rule = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} must be a whole number {rule}{why}, found {value!r}")
    return number


def check_images(**images: Any) -> None:
    """See that they are floating-point images of one shape, `[b, h, w, c]`.

    Raises:
      ValueError: if they are not: names the argument.
    """
    first = next(iter(images))
    for name, image in images.items():
        shape: Any = getattr(image, "shape", None)
        dtype: Any = getattr(image, "dtype", None)
        if shape is None or not jnp.issubdtype(dtype, jnp.floating):
            found = type(image).__name__ if shape is None else f"an array of {dtype}"
            raise ValueError(f"{name} must be an array of floating-point numbers, found {found}")
        if len(shape) != 4:
            hint = "; one image is a batch of one, image[None]" if len(shape) == 3 else ""
            raise ValueError(f"{name} must have the shape [b, h, w, c]{hint}, found {shape}")
        if shape != images[first].shape:
            raise ValueError(f"{name} must have the shape of {first}, {images[first].shape}, found {shape}")


def check_time(name: str, t: Any, low: int, high: Any) -> None:
    """See that times are whole numbers in low..high; what is traced has no values to look at.

    Raises:
      ValueError: if they are not.
    """
    if not jnp.issubdtype(jnp.result_type(t), jnp.integer):
        raise ValueError(f"{name} must be whole numbers, found {t!r}")
    if isinstance(t, jax.core.Tracer) or isinstance(high, jax.core.Tracer):
        return
    values = np.asarray(t)
    if np.any(values < low) or np.any(values > np.asarray(high)):
        raise ValueError(f"{name} must lie in {low}..{high}, found {t}")


def check_prediction(noise_hat: Any, x_t: Array) -> Array:
    """The predicted noise, if it has the shape of the states: another one would be broadcast without a word.

    Raises:
      ValueError: if it has not.
    """
    shape = getattr(noise_hat, "shape", None)
    if shape != x_t.shape:
        raise ValueError(f"the predicted noise must have the shape of x_t, {x_t.shape}, found {shape}")
    return noise_hat
