"""Parts shared by the networks. Feature maps are channels last, `[b, h, w, c]`, any size."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

Features = Float[Array, "b h w c"]
DType = Any


def sinusoidal_embedding(t: Int[Array, " b"], dim: int) -> Float[Array, "b {dim}"]:
    """Sines, then cosines, of t at dim/2 frequencies from 1 down to 1e-4, in float32.

        [sin(t f_i), cos(t f_i)],   f_i = 10000^(-i / (dim/2 - 1))

    Args:
        t: Time steps.
        dim: Size of the embedding, even and at least 4.

    Returns:
        The embedding, one row per time step.

    Raises:
        ValueError: `dim` is odd or below 4.
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"dim: got {dim}, expected an even number of at least 4")
    half = dim // 2
    frequencies = jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = t[:, None].astype(jnp.float32) * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def simple_gate(x: Float[Array, "*rest c"]) -> Float[Array, "*rest d"]:
    """First half of the channels times the second half (the activation of NAFNet)."""
    first, second = jnp.split(x, 2, axis=-1)
    return first * second


def space_to_depth(x: Features) -> Float[Array, "b H W C"]:
    """Move each 2 x 2 square into the channels, ordered (row, column, channel); height and width must be even."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: Features) -> Float[Array, "b H W C"]:
    """The inverse of `space_to_depth` (pixel shuffle with the channels of one pixel next to each other)."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)


def pad_to_multiple(x: Features, multiple: int, mode: str) -> Float[Array, "b H W c"]:
    """Extend the bottom and the right to a multiple of `multiple`; `mode` as in `jnp.pad` ("constant": zeros)."""
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -h % multiple), (0, -w % multiple), (0, 0)), mode=mode)


@jax.custom_vjp
def depthwise_conv3x3(x: Features, kernel: Float[Array, "3 3 c"]) -> Features:
    """Filter every channel with its own 3 x 3 kernel; zeros outside the image.

        y(i, j) = sum_{a, b in -1..1} kernel(a, b) x(i + a, j + b)

    Written as nine shifted multiply-adds, summed in float32: XLA's grouped convolution takes forty times as long on
    CPU. The derivative is ours too (reverse mode only): the automatic one keeps nine shifted copies of `x`, and a whole
    network then needs 1.7 times the memory and twice the time.

    Args:
        x: Feature map.
        kernel: Weights, one 3 x 3 kernel per channel.

    Returns:
        The filtered map, of the shape and dtype of `x`.
    """
    _, h, w, _ = x.shape
    padded, weights = _pad_by_one(x), kernel.astype(jnp.float32)[:, :, None, None, None, :]
    terms = [padded[:, i : i + h, j : j + w].astype(jnp.float32) * weights[i, j] for i in range(3) for j in range(3)]
    return sum(terms[1:], terms[0]).astype(x.dtype)


def _depthwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return depthwise_conv3x3(x, kernel), (x, kernel)


def _depthwise_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    padded = _pad_by_one(x)

    def weight_grad(offset: Array) -> Array:
        shifted = lax.dynamic_slice(padded, (0, offset[0], offset[1], 0), x.shape)
        return jnp.sum(shifted.astype(jnp.float32) * grad.astype(jnp.float32), axis=(0, 1, 2))

    # A loop over the nine offsets: unrolled, XLA on CPU first writes out all nine shifted maps.
    offsets = jnp.stack(jnp.divmod(jnp.arange(9), 3), axis=-1)
    kernel_grad = lax.map(weight_grad, offsets).reshape(kernel.shape).astype(kernel.dtype)
    return depthwise_conv3x3(grad, kernel[::-1, ::-1]), kernel_grad


depthwise_conv3x3.defvjp(_depthwise_forward, _depthwise_backward)


def _pad_by_one(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


class DepthwiseConv3x3(nn.Module):
    """`depthwise_conv3x3` with its weights (variance 1/9, LeCun) and a bias (zero)."""

    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        """Filter a feature map."""
        channels = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=()), (3, 3, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return depthwise_conv3x3(x.astype(self.dtype), kernel) + per_channel(bias, self.dtype)


def per_channel(weights: Float[Array, " c"], dtype: DType) -> Float[Array, "1 1 1 c"]:
    """Weights of the channels, shaped to multiply or to be added to a feature map."""
    return weights.astype(dtype).reshape(1, 1, 1, -1)
