"""From images and options, checked, to what the algorithms work on: planes in bin units, a mask, bandwidths."""

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from sel.entropy import density, sparse
from sel.entropy.density import Estimator, Field
from sel.entropy.neighborhood import clip, neighbor_mean, neighbor_sum, window_taps
from sel.entropy.options import DensityOptions, Range, is_traced, known

# Checked by `checked`, whose errors are for people.
Pixels = Shaped[Array | np.ndarray, "..."]

_ALGORITHMS = {"dense": density.density_sums, "sparse": sparse.density_sums}
_LUMINANCE = (0.299, 0.587, 0.114)
_LEAST_BANDWIDTH = 0.1
# Channels of an image at most, for a shape that could be read in two ways.
_CHANNELS = 4


@dataclass(frozen=True)
class Inputs:
    """What a density estimate of some images needs.

    Attributes:
      fields: (u, v) of each image.
      mask: 1 for the pixels that count.
      bandwidth: in bins, for each plane.
      estimator: bins, kernel and windows.
      whole: whether one window takes in the whole image.
      density_sums: the algorithm.
      shape: of the images.
      dtype: of the images, and so of the result.
    """

    fields: tuple[Field, ...]
    mask: Float[Array, "n h w"]
    bandwidth: Float[Array, " n"]
    estimator: Estimator
    whole: bool
    density_sums: Callable
    shape: tuple[int, ...]
    dtype: Any

    def each(self) -> "Inputs":
        """All images as planes of one: for a measure that takes one image, computed for each in the very same way."""
        us, vs = zip(*self.fields, strict=True)
        count = len(self.fields)
        mask, bandwidth = (jnp.concatenate([x] * count) for x in (self.mask, self.bandwidth))
        return replace(self, fields=((jnp.concatenate(us), jnp.concatenate(vs)),), mask=mask, bandwidth=bandwidth)


def prepare(
    images: Mapping[str, Any], options: DensityOptions, *, where: Any = None, neighbor_weights: Any = None
) -> Inputs:
    """Bring images and options, checked, into the form of the algorithms."""
    taps = _taps(options)
    estimator = Estimator(int(options.num_bins), options.kernel, taps, options.variant == "published")
    first, *_ = images.values()
    dtype = working_dtype(first.dtype)
    mask = jnp.ones(first.shape, dtype) if where is None else jnp.asarray(where, dtype)
    # Values that do not count are replaced before anything is computed from them: 0 times NaN is NaN.
    values = [jnp.asarray(x, dtype) for x in images.values()]
    values = values if where is None else [jnp.where(jnp.asarray(where, bool), x, 0) for x in values]
    if options.gray:
        values, mask = [_luminance(x) for x in values], mask.min(-1, keepdims=True)
    weights = _neighbor_weights(options.neighbor_weights, neighbor_weights, dtype)
    low, high = (jnp.asarray(x, dtype) for x in options.value_range)
    planes = _planes(mask)
    fields = tuple(_field(x, planes, weights, (low, high), estimator) for x in values)
    widths = _bandwidth(options.bandwidth, fields[-1][0], planes)
    fields, planes, widths = _vary_together((fields, planes, widths))
    return Inputs(
        fields=fields,
        mask=planes,
        bandwidth=widths,
        estimator=estimator,
        whole=options.windows == "global",
        density_sums=_ALGORITHMS[options.implementation] if options.implementation else _default_algorithm(),
        shape=mask.shape,
        dtype=first.dtype,
    )


def _default_algorithm() -> Callable:
    """Sparse on a CPU, dense elsewhere; what is lowered on a CPU may be for another platform (`jax.export`)."""
    return _of_platform if jax.default_backend() == "cpu" else density.density_sums


def _of_platform(*arrays, **options):
    algorithms = {"cpu": sparse.density_sums, "default": density.density_sums}
    return lax.platform_dependent(*arrays, **{k: functools.partial(f, **options) for k, f in algorithms.items()})


def _vary_together(arrays: Any) -> Any:
    """Under `jax.shard_map`: let all arrays vary over the axes of the mesh that one of them varies over.

    The algorithms' loops must begin with what they end with, and what they end with depends on all. A 0 made of each
    array says so in any version of JAX; a NaN must not spread by it.
    """
    zero = sum(jnp.isnan(x.ravel()[0]).astype(x.dtype) * 0 for x in jax.tree.leaves(arrays))
    return jax.tree.map(lambda x: x + zero, arrays)


def checked(images: Mapping[str, Any], where: Any, options: DensityOptions) -> Any:
    """The mask, with the channels of the images; refuses what is no image, and warns of what is probably none.

    Raises:
      TypeError: if something is not an array, or an image not floating point.
      ValueError: if shapes or dtypes differ.
    """
    where = _check_images(images, where)
    _warn_if_unlikely(images, where, options.value_range)
    return where


def _check_images(images: Mapping[str, Any], where: Any) -> Any:
    """Refuse what is not floating point, has fewer than three axes, or differs in shape or dtype."""
    given = {**images, **({} if where is None else {"where": where})}
    for name, x in given.items():
        if not isinstance(x, jax.Array | np.ndarray):
            raise TypeError(f"{name} must be an array of JAX or NumPy, found {type(x).__name__}")
        if name != "where" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point, by default in [0, 1], found {x.dtype}")
    first, image = next(iter(images.items()))
    if image.ndim < 3 or 0 in image.shape:
        raise ValueError(f"{first} must have shape [..., h, w, c] and not be empty, found {image.shape}")
    if where is not None and where.ndim == image.ndim and where.shape[:-1] == image.shape[:-1] and where.shape[-1] == 1:
        given["where"] = where = jnp.broadcast_to(where, image.shape)
    for name, x in given.items():
        if x.shape != image.shape:
            hint = ", or one channel" if name == "where" else ""
            raise ValueError(f"{name} must have the shape of {first}, {image.shape}{hint}, found {x.shape}")
        if name != "where" and x.dtype != image.dtype:
            raise ValueError(f"{name} must have the dtype of {first}, {image.dtype}, found {x.dtype}")
    return where


def working_dtype(dtype: Any) -> Any:
    """What to compute in: float32 or better. Not by `jnp.promote_types`, which refuses under strict promotion."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def _warn_if_unlikely(images: Mapping[str, Any], where: Any, value_range: Range) -> None:
    """Warn, outside `jax.jit`, of images that are probably in another layout or range.

    Inside `jax.jit` values are not known, and warnings would be repeated whenever something is compiled.
    """
    if any(map(is_traced, (*images.values(), where))):
        return
    name, image = next(iter(images.items()))
    *_, rows, columns, channels = image.shape
    if rows <= _CHANNELS < min(columns, channels):
        _warn(
            f"{name} of shape {image.shape} are taken for images of {rows} rows with {channels} channels: "
            "the channels of an image come last, [..., h, w, c]"
        )
    if any(map(is_traced, value_range)):
        return
    low, high = (known(x, 0) for x in value_range)
    for name, x in images.items():
        if _largest(x, where) > low + 10 * (high - low):
            _warn(
                f"{name} have values far above value_range=({low:g}, {high:g}), and all that lies outside of it is "
                "clipped: divide images of 0 to 255 by 255, or set value_range"
            )
            return


def _largest(image, where) -> float:
    if isinstance(image, jax.Array) and not image.is_fully_addressable:  # a part of it is on other machines
        return -np.inf
    counts = True if where is None else np.asarray(where, bool)
    return float(np.max(np.asarray(image, np.float64), where=counts, initial=-np.inf))


def _warn(message: str) -> None:
    # Always from this line: Python then shows a message once, not once for each call.
    warnings.warn(message, UserWarning, stacklevel=1)


def _taps(options: DensityOptions) -> tuple[tuple[float, ...], ...]:
    sizes = (1,) if isinstance(options.windows, str) else options.windows
    return tuple(window_taps(size, options.window_shape) for size in sizes)


def _field(image, mask, weights, value_range, estimator) -> Field:
    low, high = value_range
    u = _planes((clip(image, low, high) - low) * ((estimator.num_bins - 1) / (high - low)))
    if estimator.published:
        return u, neighbor_sum(u * mask, weights) / (weights.sum() * image.shape[-1])
    return u, neighbor_mean(u, mask, weights)


def _planes(images):
    return jnp.moveaxis(images, -1, -3).reshape(-1, *images.shape[-3:-1])


def _luminance(image):
    if image.shape[-1] not in (1, 3):
        raise ValueError(f"gray=True takes images of 1 or 3 channels, found {image.shape[-1]}")
    if image.shape[-1] == 1:
        return image
    return jnp.einsum("...c,c->...", image, jnp.asarray(_LUMINANCE, image.dtype))[..., None]


def _bandwidth(bandwidth, target, mask):
    """Kernel width h of each plane, in bins."""
    if isinstance(bandwidth, str):
        count = jnp.maximum(mask.sum((1, 2)), 1)
        mean = (target * mask).sum((1, 2)) / count
        variance = (jnp.square(target - mean[:, None, None]) * mask).sum((1, 2)) / count
        bandwidth = jnp.maximum(1.06 * jnp.sqrt(variance) * count ** (-1 / 5), _LEAST_BANDWIDTH)
    return jnp.broadcast_to(lax.stop_gradient(jnp.asarray(bandwidth, mask.dtype)), mask.shape[:1])


def _neighbor_weights(choice, given, dtype):
    if given is None and isinstance(choice, str):
        raise ValueError(
            f"neighbor_weights={choice!r} are drawn for each call, which takes them as neighbor_weights="
            f"sample_neighbor_weights(key, {choice!r})"
        )
    weights = choice if given is None else given
    if np.shape(weights) not in ((), (3, 3)) or isinstance(given, str):
        found = repr(given) if isinstance(given, str) else np.shape(weights)
        raise ValueError(f"neighbor_weights must have shape (3, 3), found {found}")
    weights = jnp.ones((3, 3), dtype) if weights is None else jnp.asarray(weights, dtype)
    return weights.at[1, 1].set(0)
