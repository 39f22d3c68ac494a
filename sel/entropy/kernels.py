"""Kernels of the density estimate, and the weight that one intensity gives each bin."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Kernel = Callable[[Float[Array, "..."], Any], Float[Array, "..."]]


def _kernel(value: Kernel, log_slope: Callable) -> Kernel:
    """`value` with the derivative K' = K (log K)' by z: that which autodiff finds takes several times as long."""
    wrapped = jax.custom_jvp(value)

    @wrapped.defjvp
    def _(primals, tangents):
        out = wrapped(*primals)
        return out, out * log_slope(primals[0]) * tangents[0]

    return wrapped


def _logistic(z, z0):
    # s(z) s(-z) from exp(-|z|): s(z) (1 - s(z)) is exactly 0 beyond z = 17 in float32.
    fall = jnp.exp(z0 - jnp.abs(z))
    return fall / jnp.square(1 + fall * jnp.exp(-z0))


def _sech(z, z0):
    fall = jnp.exp(z0 - jnp.abs(z))
    return (2 / jnp.pi) * fall / (1 + jnp.square(fall * jnp.exp(-z0)))


def _gaussian(z, z0):
    return jnp.exp(0.5 * (z0 - z) * (z0 + z)) / jnp.sqrt(2 * jnp.pi)


# K(z), each with integral 1, times a factor that depends on z0 alone and is 1 at z0 = 0. With z0 the smallest |z|
# over the bins the largest value is near K(0), so a sum over the bins never underflows, however small the bandwidth;
# the factor cancels in p, and z0 has no derivative.
KERNELS: dict[str, Kernel] = {
    "logistic": _kernel(_logistic, lambda z: -jnp.tanh(z / 2)),
    "sech": _kernel(_sech, lambda z: -jnp.tanh(z)),
    "gaussian": _kernel(_gaussian, lambda z: -z),
}


def bin_weights(
    u: Float[Array, "*pixels"],
    *,
    num_bins: int,
    bandwidth: Any,
    kernel: str = "logistic",
    axis: int = -1,
    add_bins: Callable = jnp.sum,
) -> Float[Array, "..."]:
    """Share of each intensity bin in one pixel, summing to 1: p_a(u) = K((a - u)/h) / sum_a' K((a' - u)/h).

    Normalising over the bins that exist, which the published code does not do, keeps the mass of pixels near black
    and white: without it a black pixel has 0.56 of a grey one's at L = 32, and the divergence from a black target is
    smallest at 3/255.

    Args:
      u: intensities in bin units, 0 to `num_bins - 1`.
      num_bins: number of bins L, at 0, 1, ..., L - 1.
      bandwidth: kernel width h in bins, positive.
      kernel: `logistic`, `sech` or `gaussian`.
      axis: place of the bin axis in the result. Sums over the last axis are several times slower than others on a CPU.
      add_bins: what adds up values along an axis.

    Returns:
      Weights with one axis of length L added.
    """
    z, z0 = _distances(u, num_bins, bandwidth, axis)
    weights = KERNELS[kernel](z, jax.lax.stop_gradient(z0))
    return weights / jnp.expand_dims(add_bins(weights, axis), axis)


def kernel_values(u: Float[Array, "*pixels"], *, num_bins: int, bandwidth: Any, kernel: str, axis: int = -1):
    """K((a - u)/h) for every bin a, without normalisation: the published factors, up to their constant."""
    z, z0 = _distances(u, num_bins, bandwidth, axis)
    return KERNELS[kernel](z, jnp.zeros_like(z0))


def _distances(u, num_bins, bandwidth, axis):
    """(a - u)/h for every bin a, and the one that is smallest in size."""
    u = jnp.expand_dims(u, axis)
    shape = [1] * u.ndim
    shape[axis] = num_bins
    bins = jnp.arange(num_bins, dtype=u.dtype).reshape(shape)
    return (bins - u) / bandwidth, jnp.abs(u - jnp.round(u)) / bandwidth
