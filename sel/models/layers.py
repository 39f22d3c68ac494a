"""Parts shared by the networks. Feature maps are channels last, `[b, h, w, c]`, any size."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export
from jaxtyping import Array, ArrayLike, Float, Int

from sel.models.operations import (
    Features,
    conv3x3,
    conv3x3_few_inputs,
    conv3x3_few_outputs,
    depthwise_conv3x3,
    layer_norm,
    pointwise_conv,
)

DType = Any

# float16 would need its losses scaled.
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_width(width: int) -> None:
    """Check that a width is even, as the halves of gates and embeddings require.

    Raises:
      ValueError: if the width is odd.
    """
    if width % 2:
        raise ValueError(f"width must be an even number, found {width}")


def check_inputs(x_t: Array, mu: Array, t: Array) -> None:
    """See that a network's inputs belong together: broadcasting would hide it.

    Raises:
        ValueError: They do not.
    """
    if x_t.ndim != 4:
        raise ValueError(f"x_t must have the shape [b, h, w, c], found {x_t.shape}")
    if mu.shape != x_t.shape:
        raise ValueError(f"mu must have the shape of x_t, {x_t.shape}, found {mu.shape}")
    if t.shape != x_t.shape[:1]:
        raise ValueError(f"t must be one time for each image, of shape {x_t.shape[:1]}, found {t.shape}")


def sinusoidal_embedding(t: Int[Array, " b"], dim: int) -> Float[Array, "b {dim}"]:
    """Sines, then cosines, of t at dim/2 frequencies from 1 down to 1e-4, in float32.

        [sin(t f_i), cos(t f_i)],   f_i = 10000^(-i / (dim/2 - 1))

    Args:
      t: time steps.
      dim: size of the embedding, even and at least 4.

    Returns:
      The embedding, one row per time step.

    Raises:
      ValueError: if `dim` is odd or below 4.
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"dim must be an even number of at least 4, found {dim}")
    half = dim // 2
    frequencies = jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
    angles = t[:, None].astype(jnp.float32) * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def simple_gate(first: Float[Array, "*rest c"], second: Float[Array, "*rest c"]) -> Float[Array, "*rest c"]:
    """One half of the channels times the other (the activation of NAFNet)."""
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


def _pixels_at_most(x: Features, count: int) -> bool:
    """Whether an image has few pixels; sides that are symbols (`jax.export`) may be any, and count as many."""
    sides = x.shape[1:3]
    return not any(map(export.is_symbolic_dim, sides)) and math.prod(sides) <= count


class Modulated(NamedTuple):
    """`x * scale + shift`, not computed yet: the 1 x 1 convolution that takes it has a cheaper way."""

    x: Features
    scale: Float[Array, "#b 1 1 c"]
    shift: Float[Array, "#b 1 1 c"]

    def computed(self) -> Features:
        """The feature map."""
        return self.x * self.scale + self.shift


class _Pointwise(nn.Module):
    features: int
    use_bias: bool = True
    dtype: DType = jnp.float32

    def outputs(self, x: Features | Modulated, parts: int, gain: Array | None = None) -> list[Array]:
        if isinstance(x, Modulated) and _pixels_at_most(x.x, self.features):
            x = x.computed()  # small maps have fewer numbers than a kernel for each image
        plain = x.x if isinstance(x, Modulated) else x
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (plain.shape[-1], self.features))
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, (self.features,)) if self.use_bias else jnp.zeros(self.features)
        if gain is not None:
            kernel, bias = kernel * gain[None], bias * gain
        biases = bias[None]
        if isinstance(x, Modulated):
            biases = biases + x.shift[:, 0, 0] @ kernel
            kernel = jnp.broadcast_to(x.scale[:, 0, 0, :, None] * kernel[None], (plain.shape[0], *kernel.shape))
        plain, kernel, biases = (a.astype(self.dtype) for a in (plain, kernel, biases[:, None, None]))
        outputs = [pointwise_conv(plain, part) for part in jnp.split(kernel, parts, axis=-1)]
        return [y + part for y, part in zip(outputs, jnp.split(biases, parts, axis=-1), strict=True)]


class PointwiseConv(_Pointwise):
    """`pointwise_conv` with its weights (variance 1 / fan_in, LeCun) and a bias (zero).

    What multiplies or is added to its inputs, or multiplies its outputs, goes into kernel and bias: as a product of
    feature maps it would be one more to keep, and to pass over for each gradient.
    """

    @nn.compact
    def __call__(self, x: Features | Modulated, gain: Float[Array, " d"] | None = None) -> Float[Array, "b h w d"]:
        """Transform the channels of every pixel, and multiply each output channel by its `gain`."""
        return self.outputs(x, 1, gain)[0]


class PointwiseHalves(_Pointwise):
    """`PointwiseConv`, the halves of its outputs apart: to join their gradients, XLA on CPU copies number by number."""

    @nn.compact
    def __call__(self, x: Features | Modulated) -> tuple[Float[Array, "b h w d"], Float[Array, "b h w d"]]:
        """Transform the channels of every pixel."""
        first, second = self.outputs(x, 2)
        return first, second


class ModulatedNorm(nn.Module):
    """`layer_norm`, scaled by its weights (one) and by what it is given, and shifted."""

    epsilon: float
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Features, scale: Float[Array, "b 1 1 c"], shift: Float[Array, "b 1 1 c"]) -> Modulated:
        """Normalise a feature map; `scale` is added to 1."""
        weights = per_channel(self.param("scale", nn.initializers.ones, (x.shape[-1],)), self.dtype)
        return Modulated(layer_norm(x.astype(self.dtype), self.epsilon), weights * (1 + scale), shift)


class DepthwiseConv3x3(nn.Module):
    """`depthwise_conv3x3` with its weights (variance 1/9, LeCun) and a bias (zero), each map having its part."""

    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, *maps: Features) -> list[Features]:
        """Filter feature maps of the same size."""
        channels = sum(x.shape[-1] for x in maps)
        kernel = self.param("kernel", nn.initializers.lecun_normal(in_axis=()), (3, 3, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        kernels, biases = (jnp.split(weights, len(maps), axis=-1) for weights in (kernel, bias))
        return [
            depthwise_conv3x3(x.astype(self.dtype), weights) + per_channel(shift, self.dtype)
            for x, weights, shift in zip(maps, kernels, biases, strict=True)
        ]


class IntroConv3x3(nn.Module):
    """A 3 x 3 convolution of few channels, with its weights (variance 1 / fan_in, LeCun) and a bias (zero)."""

    features: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b h w d"]:
        """Filter an image."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        conv = conv3x3_few_inputs if jax.default_backend() == "cpu" else conv3x3
        return conv(x.astype(self.dtype), jnp.asarray(kernel, self.dtype)) + per_channel(bias, self.dtype)


class EndingConv3x3(nn.Module):
    """A 3 x 3 convolution to few channels, with its weights (variance 1 / fan_in, LeCun) and a bias (zero). float32."""

    features: int

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b h w d"]:
        """Filter a feature map."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        conv = conv3x3_few_outputs if jax.default_backend() == "cpu" else conv3x3
        return conv(x.astype(jnp.float32), jnp.asarray(kernel)) + per_channel(bias, jnp.float32)


def per_channel(weights: Float[ArrayLike, " c"], dtype: DType) -> Float[Array, "1 1 1 c"]:
    """Weights of the channels, shaped to multiply or to be added to a feature map."""
    return jnp.asarray(weights, dtype).reshape(1, 1, 1, -1)
