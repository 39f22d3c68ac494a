"""The conditional U-Net with linear attention, the other published noise predictor."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from sel.choices import check, setting
from sel.models.layers import PRECISIONS, DType, check_inputs, check_width, pad_to_multiple, sinusoidal_embedding
from sel.models.operations import Features

HEADS, HEAD_DIM = 4, 32


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions, the first scaled and shifted by time, around a shortcut.

    y = silu(conv(silu(conv(x) (1 + scale) + shift))) + shortcut(x)
    """

    channels: int
    dtype: DType

    @nn.compact
    def __call__(self, x: Features, time: Float[Array, "b d"]) -> Float[Array, "b h w C"]:
        """Transform a feature map, given the embedded time."""
        conv3x3 = partial(nn.Conv, self.channels, (3, 3), use_bias=False, dtype=self.dtype)
        modulation = nn.Dense(2 * self.channels, dtype=self.dtype, name="time")(nn.silu(time))[:, None, None, :]
        scale, shift = jnp.split(modulation, 2, axis=-1)
        y = nn.silu(conv3x3(name="conv1")(x) * (1 + scale) + shift)
        y = nn.silu(conv3x3(name="conv2")(y))
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, use_bias=False, dtype=self.dtype, name="shortcut")(x)
        return x + y


class LinearAttention(nn.Module):
    """Attention at a cost linear in the pixels: keys and values meet first, in a 32 x 32 matrix per head.

        q = softmax_d(q) / sqrt(d),   k = softmax_n(k),   y = x + norm(out(q (k^T v / n)))

    over the d = 32 features of a head and the n pixels.
    """

    norm_epsilon: float
    dtype: DType

    @nn.compact
    def __call__(self, x: Features) -> Features:
        """Add what every pixel gathers from all others."""
        b, h, w, channels = x.shape
        norm = partial(
            nn.LayerNorm, epsilon=self.norm_epsilon, use_bias=False, use_fast_variance=False, dtype=self.dtype
        )
        qkv = nn.Dense(3 * HEADS * HEAD_DIM, use_bias=False, dtype=self.dtype, name="qkv")(norm(name="norm")(x))
        q, k, v = jnp.unstack(qkv.astype(jnp.float32).reshape(b, h * w, 3, HEADS, HEAD_DIM), axis=2)
        context = jnp.einsum("bnhd,bnhe->bhde", jax.nn.softmax(k, axis=1), v / (h * w))
        y = jnp.einsum("bhde,bnhd->bnhe", context, jax.nn.softmax(q, axis=-1) * HEAD_DIM**-0.5)
        y = nn.Dense(channels, dtype=self.dtype, name="out")(y.reshape(b, h, w, HEADS * HEAD_DIM))
        return x + norm(name="out_norm")(y)


class ConditionalUNet(nn.Module):
    """U-Net that sees the noisy state, the degraded image and the time, and predicts the noise.

    Works on [x_t - mu, mu], with two `ResBlock`s and one `LinearAttention` per level and concatenated skips. Images of
    any size (reflected at the bottom and the right to a multiple of 2^depth, and cropped back) and any number of
    channels. The defaults are the published size.

    Weights start as truncated normals of variance 1 / fan_in (LeCun), biases at 0, norms at 1; the published code
    starts from PyTorch's uniform defaults.

    Besides the fields below, which are keys of configurations, `remat` computes the inside of each block again for its
    gradient instead of keeping it. The lowest level is not halved again, though images are padded as if it were. The
    published code uses a `norm_epsilon` of 1e-5 in float32 and 1e-3 in any other precision. Attention is float32.

    Raises:
      ValueError: if a field is out of its range.

    Source: Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations", ICML 2023; the
    attention, Shen et al., "Efficient Attention", WACV 2021.
    """

    width: int = setting(64, at_least=4, doc="channels at full resolution, an even number; doubled at each level")
    # Images are padded to a multiple of 2^depth: 10 is more than any person waits for.
    depth: int = setting(4, at_least=0, at_most=10, doc="number of levels")
    norm_epsilon: float = setting(1e-5, above=0, doc="added to the variance in layer norms")
    dtype: DType = setting(
        jnp.float32, choices=PRECISIONS, doc="precision of the computation; parameters and output stay float32"
    )
    remat: bool = False

    def __post_init__(self) -> None:
        check(self)
        check_width(self.width)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x_t: Float[Array, "b h w c"], mu: Float[Array, "b h w c"], t: Int[Array, " b"]
    ) -> Float[Array, "b h w c"]:
        """Predict the noise.

        Args:
          x_t: noisy states, in image units.
          mu: degraded images, in [0, 1].
          t: time steps.

        Returns:
          The noise in standard deviations, float32.
        """
        check_inputs(x_t, mu, t)
        _, h, w, c = x_t.shape
        block = partial(self._block(ResBlock), dtype=self.dtype)
        time = nn.Dense(4 * self.width, name="time_1")(sinusoidal_embedding(t, self.width))
        time = nn.Dense(4 * self.width, name="time_2")(nn.gelu(time, approximate=False))

        x = pad_to_multiple(jnp.concatenate([x_t - mu, mu], axis=-1), 2**self.depth, mode="reflect")
        x = nn.Conv(self.width, (7, 7), use_bias=False, dtype=self.dtype, name="intro")(x)
        first, skips = x, []
        for level in range(self.depth):
            x, new_skips = self._down(x, time, level)
            skips += new_skips
        x = block(x.shape[-1], name="middle_block1")(x, time)
        x = self._block(LinearAttention)(self.norm_epsilon, self.dtype, name="middle_attention")(x)
        x = block(x.shape[-1], name="middle_block2")(x, time)
        for level in range(self.depth):
            x = self._up(x, time, level, (skips.pop(), skips.pop()))
        x = block(self.width, name="ending_block")(jnp.concatenate([x, first], axis=-1), time)
        return nn.Conv(c, (3, 3), dtype=jnp.float32, name="ending")(x)[:, :h, :w, :]

    def _block(self, kind: type[nn.Module]) -> type[nn.Module]:
        return nn.remat(kind) if self.remat else kind

    def _down(self, x: Features, time: Float[Array, "b d"], level: int) -> tuple[Array, list[Features]]:
        channels, name = x.shape[-1], f"down_{level}"
        block, attention = self._block(ResBlock), self._block(LinearAttention)
        x = early = block(channels, self.dtype, name=f"{name}_block1")(x, time)
        x = block(channels, self.dtype, name=f"{name}_block2")(x, time)
        x = late = attention(self.norm_epsilon, self.dtype, name=f"{name}_attention")(x)
        resize = partial(nn.Conv, 2 * channels, dtype=self.dtype, name=f"{name}_resize")
        if level == self.depth - 1:
            return resize(kernel_size=(3, 3), use_bias=False)(x), [early, late]
        return resize(kernel_size=(4, 4), strides=2, padding=1)(x), [early, late]

    def _up(self, x: Features, time: Float[Array, "b d"], level: int, skips: tuple[Array, Array]) -> Array:
        channels, name, last = x.shape[-1], f"up_{level}", level == self.depth - 1
        block, attention = self._block(ResBlock), self._block(LinearAttention)
        x = block(channels, self.dtype, name=f"{name}_block1")(jnp.concatenate([x, skips[0]], axis=-1), time)
        x = block(channels, self.dtype, name=f"{name}_block2")(jnp.concatenate([x, skips[1]], axis=-1), time)
        x = attention(self.norm_epsilon, self.dtype, name=f"{name}_attention")(x)
        if not last:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return nn.Conv(channels // 2, (3, 3), use_bias=not last, dtype=self.dtype, name=f"{name}_resize")(x)
