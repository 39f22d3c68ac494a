"""From images and options, checked, to what the algorithms work on: planes in bin units, a mask, bandwidths."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from sel.entropy import density, sparse
from sel.entropy.density import Estimator, Field
from sel.entropy.kernels import KERNELS
from sel.entropy.neighborhood import clip, neighbor_mean, neighbor_sum, window_taps

# Checked by `check_images`, whose errors are for people.
Pixels = Shaped[Array | np.ndarray, "..."]
Windows = Sequence[int] | Literal["global"]

_IMPLEMENTATIONS = {"dense": density.density_sums, "sparse": sparse.density_sums}
_LUMINANCE = (0.299, 0.587, 0.114)
_LEAST_BANDWIDTH = 0.1


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
    images: Mapping[str, Any],
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
    implementation: str | None = None,
) -> Inputs:
    """Check images and options, see `sel.spatial_entropy_loss`, and bring them into the form of the algorithms."""
    check_images({**images, "where": where})
    choose("variant", variant, ("corrected", "published"))
    choose("kernel", kernel, KERNELS)
    _check_range(value_range)
    if not isinstance(num_bins, int | np.integer) or num_bins < 2:
        raise ValueError(f"num_bins must be a whole number of at least 2, found {num_bins!r}")
    estimator = Estimator(int(num_bins), kernel, _taps(windows, window_shape), variant == "published")
    if implementation is None:
        implementation = "sparse" if jax.default_backend() == "cpu" else "dense"
    density_sums = choose("implementation", implementation, _IMPLEMENTATIONS)

    first, *_ = images.values()
    dtype = jnp.promote_types(first.dtype, jnp.float32)
    mask = jnp.ones(first.shape, dtype) if where is None else jnp.asarray(where, dtype)
    # Values that do not count are replaced before anything is computed from them: 0 times NaN is NaN.
    values = [jnp.asarray(x, dtype) for x in images.values()]
    values = values if where is None else [jnp.where(jnp.asarray(where, bool), x, 0) for x in values]
    if gray:
        values, mask = [_luminance(x) for x in values], mask.min(-1, keepdims=True)
    weights = _neighbor_weights(neighbor_weights, dtype)
    planes = _planes(mask)
    fields = tuple(_field(x, planes, weights, value_range, estimator) for x in values)
    widths = _bandwidth(bandwidth, fields[-1][0], planes)
    fields, planes, widths = _vary_together((fields, planes, widths))
    return Inputs(fields, planes, widths, estimator, windows == "global", density_sums, mask.shape, first.dtype)


def _vary_together(arrays: Any) -> Any:
    """Under `jax.shard_map`: let all arrays vary over the axes of the mesh that one of them varies over.

    The algorithms' loops must begin with what they end with, and what they end with depends on all. A 0 made of each
    array says so in any version of JAX; a NaN must not spread by it.
    """
    zero = sum(jnp.isnan(x.ravel()[0]).astype(x.dtype) * 0 for x in jax.tree.leaves(arrays))
    return jax.tree.map(lambda x: x + zero, arrays)


def choose(argument: str, value: str, choices: Any) -> Any:
    """The choice called `value`, or an error that names the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, found {value!r}")
    return choices[value] if isinstance(choices, dict) else value


def check_images(images: Mapping[str, Any]) -> None:
    """Floating point, at least three axes, and all alike; a mask of their shape."""
    (first, image), *others = ((name, x) for name, x in images.items() if x is not None)
    for name, x in images.items():
        if x is not None and name != "where" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be floating point, by default in [0, 1], found {x.dtype}")
    if image.ndim < 3 or 0 in image.shape:
        raise ValueError(f"{first} must have shape [..., h, w, c] and not be empty, found {image.shape}")
    for name, x in others:
        if x.shape != image.shape:
            raise ValueError(f"{name} must have the shape of {first}, {image.shape}, found {x.shape}")
        if name != "where" and x.dtype != image.dtype:
            raise ValueError(f"{name} must have the dtype of {first}, {image.dtype}, found {x.dtype}")


def _taps(windows: Windows, shape: str) -> tuple[tuple[float, ...], ...]:
    choose("window_shape", shape, ("box", "gaussian"))
    if isinstance(windows, str) and windows == "global":
        return (window_taps(1, shape),)
    if isinstance(windows, str) or not isinstance(windows, Iterable):
        raise ValueError(f'windows must be odd sizes, or "global", found {windows!r}')
    sizes = tuple(windows)
    odd = all(isinstance(k, int | np.integer) and k > 0 and k % 2 == 1 for k in sizes)
    if not sizes or not odd or len(set(sizes)) < len(sizes):
        raise ValueError(f'windows must be odd sizes of at least 1, each once, or "global", found {windows!r}')
    return tuple(window_taps(int(k), shape) for k in sizes)


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
        choose("bandwidth", bandwidth, ("silverman",))
        count = jnp.maximum(mask.sum((1, 2)), 1)
        mean = (target * mask).sum((1, 2)) / count
        variance = (jnp.square(target - mean[:, None, None]) * mask).sum((1, 2)) / count
        bandwidth = jnp.maximum(1.06 * jnp.sqrt(variance) * count ** (-1 / 5), _LEAST_BANDWIDTH)
    elif not _is_number(bandwidth) or (not isinstance(bandwidth, jax.core.Tracer) and not 0 < bandwidth < np.inf):
        raise ValueError(f'bandwidth must be a positive number of bins, or "silverman", found {bandwidth!r}')
    return jnp.broadcast_to(lax.stop_gradient(jnp.asarray(bandwidth, mask.dtype)), mask.shape[:1])


def _is_number(value) -> bool:
    return isinstance(value, int | float | np.number) or (isinstance(value, jax.Array) and value.ndim == 0)


def _check_range(value_range) -> None:
    pair = isinstance(value_range, Iterable) and len(tuple(value_range)) == 2
    if not pair or not all(map(_is_number, value_range)) or not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise ValueError(f"value_range must be (low, high) with low < high, found {value_range!r}")


def _neighbor_weights(weights, dtype):
    if weights is None:
        weights = jnp.ones((3, 3), dtype)
    elif weights.shape != (3, 3):
        raise ValueError(f"neighbor_weights must have shape (3, 3), found {weights.shape}")
    return jnp.asarray(weights, dtype).at[1, 1].set(0)
