"""Functions of feature maps, `[b, h, w, c]`, for which XLA on CPU takes too long, with their derivatives."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Features = Float[Array, "b h w c"]


@jax.custom_vjp
def pointwise_conv(x: Features, kernel: Float[Array, "*b c d"]) -> Float[Array, "b h w d"]:
    """The channels of every pixel times a matrix: a 1 x 1 convolution.

    The derivative is ours (reverse mode only): XLA on CPU turns the automatic one's operands around in memory, and a
    layer then takes twice the time. The kernel's part is summed in float32.

    Args:
      x: feature map.
      kernel: the matrix of all images, or one for each.

    Returns:
      The products, of the dtype of `x`.
    """
    return _products(x, kernel, kernel.ndim - 2)


def _products(x: Array, kernel: Array, axis: int) -> Array:
    """Pixels times the kernel, whose `axis` is that of the channels of `x`."""
    each = tuple(range(kernel.ndim - 2))
    products = lax.dot_general(_pixels(x, kernel), kernel, (((kernel.ndim - 1,), (axis,)), (each, each)))
    return products.reshape(*x.shape[:-1], -1)


def _pixels(x: Array, kernel: Array) -> Array:
    """All pixels in one row, or those of each image.

    One form for all that reads a feature map: XLA on CPU computes another one again, even for an axis of size 1.
    """
    return x.reshape(*kernel.shape[:-2], -1, x.shape[-1])


def _pointwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return pointwise_conv(x, kernel), (x, kernel)


def _pointwise_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    # The barrier keeps the copy in another order out of what computes x and grad.
    pixels = lax.optimization_barrier((_pixels(x, kernel), _pixels(grad, kernel)))
    each, row = tuple(range(kernel.ndim - 2)), (kernel.ndim - 2,)
    kernel_grad = lax.dot_general(*pixels, ((row, row), (each, each)), preferred_element_type=jnp.float32)
    return _products(grad, kernel, kernel.ndim - 1), kernel_grad.astype(kernel.dtype)


pointwise_conv.defvjp(_pointwise_forward, _pointwise_backward)


def conv3x3(x: Features, kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """A 3 x 3 convolution, zeros outside the image, as the compiler offers it.

    Args:
      x: feature map.
      kernel: weights.

    Returns:
      The filtered map.
    """
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_vjp
def conv3x3_few_inputs(x: Features, kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """`conv3x3` whose derivative is ours (reverse mode only): one matrix product of the nine neighbours' channels.

    For few inputs: XLA on CPU takes four times as long for the kernel's part.
    """
    return conv3x3(x, kernel)


def _few_inputs_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3x3(x, kernel), (x, kernel)


def _few_inputs_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    _, h, w, _ = x.shape
    padded = _pad_by_one(x)
    neighbours = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    rows, rows_grad = (y.reshape(-1, y.shape[-1]) for y in (jnp.concatenate(neighbours, axis=-1), grad))
    kernel_grad = lax.dot_general(rows, rows_grad, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    (x_grad,) = jax.linear_transpose(lambda x: conv3x3(x, kernel), x)(grad)
    return x_grad, kernel_grad.reshape(kernel.shape).astype(kernel.dtype)


conv3x3_few_inputs.defvjp(_few_inputs_forward, _few_inputs_backward)


def conv3x3_few_outputs(x: Features, kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """A 3 x 3 convolution, zeros outside the image, as one matrix product and nine shifted sums of its columns.

        y(i, j) = sum_{a, b in -1..1} z_ab(i + a, j + b),   z = kernel x

    For few outputs: XLA on CPU takes seven times as long for the derivative of such a convolution.

    Args:
      x: feature map.
      kernel: weights.

    Returns:
      The filtered map.
    """
    _, h, w, c = x.shape
    outputs = kernel.shape[-1]
    z = _pad_by_one(pointwise_conv(x, kernel.transpose(2, 0, 1, 3).reshape(c, 9 * outputs)))
    parts = jnp.split(z, 9, axis=-1)
    terms = [parts[3 * i + j][:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return sum(terms[1:], terms[0])


@jax.custom_vjp
def depthwise_conv3x3(x: Features, kernel: Float[Array, "3 3 c"]) -> Features:
    """Filter every channel with its own 3 x 3 kernel; zeros outside the image.

        y(i, j) = sum_{a, b in -1..1} kernel(a, b) x(i + a, j + b)

    Written as nine shifted multiply-adds, summed in float32: XLA's grouped convolution takes forty times as long on
    CPU. The derivative is ours too (reverse mode only): the automatic one keeps nine shifted copies of `x`, and a whole
    network then needs 1.7 times the memory and twice the time.

    Args:
      x: feature map.
      kernel: weights, one 3 x 3 kernel per channel.

    Returns:
      The filtered map, of the shape and dtype of `x`.
    """
    return _depthwise_forward(x, kernel)[0]


def _depthwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    _, h, w, _ = x.shape
    padded, weights = _pad_by_one(x), kernel.astype(jnp.float32)[:, :, None, None, None, :]
    terms = [padded[:, i : i + h, j : j + w].astype(jnp.float32) * weights[i, j] for i in range(3) for j in range(3)]
    return sum(terms[1:], terms[0]).astype(x.dtype), (padded, kernel)


def _depthwise_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    padded, kernel = saved
    # A GPU fuses each product with its sum; XLA on CPU writes all nine products out first.
    kernel_grad = lax.platform_dependent(padded, grad, cpu=_kernel_grad_by_rows, default=_kernel_grad)
    return depthwise_conv3x3(grad, kernel[::-1, ::-1]), kernel_grad.astype(kernel.dtype)


def _kernel_grad(padded: Array, grad: Array) -> Array:
    _, h, w, c = grad.shape
    shifted = [padded[:, i : i + h, j : j + w].astype(jnp.float32) for i in range(3) for j in range(3)]
    return jnp.stack([jnp.sum(x * grad.astype(jnp.float32), axis=(0, 1, 2)) for x in shifted]).reshape(3, 3, c)


def _kernel_grad_by_rows(padded: Array, grad: Array) -> Array:
    """The same, row by row into nine sums as long as a row; columns and channels are one axis, which vectorises."""
    b, h, w, c = grad.shape

    def products(row: Array | int) -> list[Array]:
        rows = lax.dynamic_slice_in_dim(padded, row, 3, axis=1).reshape(b, 3, (w + 2) * c).astype(jnp.float32)
        rows_grad = lax.dynamic_slice_in_dim(grad, row, 1, axis=1).reshape(b, w * c).astype(jnp.float32)
        return [rows[:, i, j * c : (j + w) * c] * rows_grad for i in range(3) for j in range(3)]

    def add(row: Array, sums: list[Array]) -> list[Array]:
        return [total + product for total, product in zip(sums, products(row), strict=True)]

    sums = lax.fori_loop(1, h, add, products(0))
    return jnp.stack([total.reshape(b * w, c).sum(0) for total in sums]).reshape(3, 3, c)


depthwise_conv3x3.defvjp(_depthwise_forward, _depthwise_backward)


def _pad_by_one(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def layer_norm(x: Features, epsilon: float) -> Features:
    """Every pixel's channels, shifted and scaled to mean 0 and variance 1.

        y = (x - mean) / sqrt(variance + epsilon)

    Computed in float32. The derivative is ours (reverse mode only): from y and the root alone it needs two thirds of
    the memory of the automatic one, and less time.

    Args:
      x: feature map.
      epsilon: added to the variance.

    Returns:
      The normalised map, of the shape and dtype of `x`.
    """
    return _layer_norm_forward(x, epsilon)[0]


def _layer_norm_forward(x: Array, epsilon: float) -> tuple[Array, tuple[Array, Array]]:
    x32 = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    scale = lax.rsqrt(jnp.mean(jnp.square(x32 - mean), axis=-1, keepdims=True) + epsilon)
    mean, scale = _apart((mean, scale))
    y = ((x32 - mean) * scale).astype(x.dtype)
    return y.reshape(x.shape), (y, scale)


def _layer_norm_backward(epsilon: float, saved: tuple[Array, Array], grad: Array) -> tuple[Array]:
    y, scale = saved
    y, slope = y.astype(jnp.float32), _apart(grad.reshape(y.shape)).astype(jnp.float32)
    mean, along_y = _apart((jnp.mean(slope, axis=-1, keepdims=True), jnp.mean(slope * y, axis=-1, keepdims=True)))
    return ((scale * (slope - mean - along_y * y)).astype(grad.dtype).reshape(grad.shape),)


def _apart(x: Any) -> Any:
    """The same. What XLA on CPU fuses with a sum over channels takes up to five times as long; a GPU gains by it."""
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
