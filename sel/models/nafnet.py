"""The conditional NAFNet that predicts the noise of a diffusion state."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from sel.choices import check, setting
from sel.models.layers import (
    PRECISIONS,
    DepthwiseConv3x3,
    DType,
    EndingConv3x3,
    IntroConv3x3,
    Modulated,
    ModulatedNorm,
    PointwiseConv,
    PointwiseHalves,
    check_inputs,
    check_width,
    depth_to_space,
    pad_to_multiple,
    simple_gate,
    sinusoidal_embedding,
    space_to_depth,
)
from sel.models.operations import Features


def pooled(module: nn.Module, y: Features) -> Float[Array, "#b 1 1 c"]:
    """The mean over each image, as a module uses it.

    This lets a part of an image be treated as the whole image would be: where the collection "statistics" is mutable,
    the mean is that over the batch, of parts from everywhere, and is kept; where it is given, it replaces the mean.
    """
    if module.is_mutable_collection("statistics") and not module.is_initializing():
        module.put_variable("statistics", "mean", jnp.mean(y, axis=(0, 1, 2), keepdims=True))
    if module.has_variable("statistics", "mean"):
        return module.get_variable("statistics", "mean")
    return jnp.mean(y, axis=(1, 2), keepdims=True)


class NAFBlock(nn.Module):
    """One block: gated convolution with channel attention, then a gated feed-forward, each scaled and shifted by time.

        y = x + beta  * conv3(attend(gate(depthwise(conv1(norm1(x) (1 + scale_1) + shift_1)))))
        z = y + gamma * conv5(gate(conv4(norm2(y) (1 + scale_2) + shift_2)))

    Shaped as the body of a scan: `(x, time) -> (z, None)`. beta and gamma start at 0, so a new block is the identity.
    """

    norm_epsilon: float
    dtype: DType

    @nn.compact
    def __call__(self, x: Features, time: Float[Array, "b d"]) -> tuple[Features, None]:
        """Transform a feature map, given the embedded time."""
        channels = x.shape[-1]
        pointwise, halves = partial(PointwiseConv, dtype=self.dtype), partial(PointwiseHalves, dtype=self.dtype)
        norm = partial(ModulatedNorm, self.norm_epsilon, self.dtype)
        modulation = pointwise(4 * channels, name="time")(simple_gate(*jnp.split(time, 2, -1))[:, None, None, :])
        shift_1, scale_1, shift_2, scale_2 = jnp.split(modulation, 4, axis=-1)

        modulated = norm(name="norm1")(x, scale_1, shift_1)
        y = simple_gate(*DepthwiseConv3x3(self.dtype, name="conv2")(*halves(2 * channels, name="conv1")(modulated)))
        attention = pointwise(channels, name="attention")(pooled(self, y))
        attended = Modulated(y, attention, jnp.zeros_like(attention))
        x = x + pointwise(channels, name="conv3")(attended, self.param("beta", nn.initializers.zeros, (channels,)))

        modulated = norm(name="norm2")(x, scale_2, shift_2)
        y = simple_gate(*halves(2 * channels, name="conv4")(modulated))
        return x + pointwise(channels, name="conv5")(y, self.param("gamma", nn.initializers.zeros, (channels,))), None


class ConditionalNAFNet(nn.Module):
    """NAFNet that sees the noisy state, the degraded image and the time, and predicts the noise.

    A U-shape of `NAFBlock`s over [x_t - mu, mu]: 2 x 2 strided convolutions down, 1 x 1 convolution and pixel shuffle
    up, additive skips. Images of any size (padded with zeros at the bottom and the right to a multiple of 2^depth, and
    cropped back) and any number of channels. The defaults are the published size, 287,965,571 parameters.

    The blocks of a stage are one `nn.scan`: their parameters carry a leading block axis, and the published 28-block
    stage compiles as one block (12 s against 88 s on CPU).

    Weights start as truncated normals of variance 1 / fan_in (LeCun), biases and residual weights at 0, norms at 1; the
    published code starts from PyTorch's uniform defaults.

    Besides the fields below, which are keys of configurations, `remat` computes the inside of each block again for its
    gradient instead of keeping it. The published code uses a `norm_epsilon` of 1e-5 in float32 and 1e-3 in any other
    precision.

    Raises:
      ValueError: if a field is out of its range, or the decoder is not as deep as the encoder.

    Source: Luo et al., "Refusion", CVPR Workshops 2023, on Chen et al., "Simple Baselines for Image Restoration", ECCV
    2022.
    """

    width: int = setting(64, at_least=4, doc="channels at full resolution, an even number; doubled at each level")
    encoder_blocks: Sequence[int] = setting(
        (1, 1, 1, 1, 28), at_least=0, doc="blocks at each level on the way down, finest first"
    )
    middle_blocks: int = setting(1, at_least=0, doc="blocks at the lowest resolution")
    decoder_blocks: Sequence[int] = setting(
        (1, 1, 1, 1, 1), at_least=0, doc="blocks at each level on the way up, coarsest first; as many levels"
    )
    norm_epsilon: float = setting(1e-5, above=0, doc="added to the variance in layer norms")
    dtype: DType = setting(
        jnp.float32, choices=PRECISIONS, doc="precision of the computation; parameters and output stay float32"
    )
    remat: bool = False

    def __post_init__(self) -> None:
        check(self)
        check_width(self.width)
        if len(self.decoder_blocks) != len(self.encoder_blocks):
            raise ValueError(
                f"decoder_blocks must be {len(self.encoder_blocks)} numbers, as encoder_blocks, "
                f"found {tuple(self.decoder_blocks)}"
            )
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
        depth = len(self.encoder_blocks)
        check_inputs(x_t, mu, t)
        _, h, w, c = x_t.shape
        time = self._embed_time(t)

        x = pad_to_multiple(jnp.concatenate([x_t - mu, mu], axis=-1), 2**depth, mode="constant")
        x = IntroConv3x3(self.width, self.dtype, name="intro")(x)
        skips = []
        for level, blocks in enumerate(self.encoder_blocks):
            x = self._stage(x, time, blocks, f"encoder_{level}")
            skips.append(x)
            x = PointwiseConv(2 * x.shape[-1], dtype=self.dtype, name=f"down_{level}")(space_to_depth(x))
        x = self._stage(x, time, self.middle_blocks, "middle")
        for level, blocks in enumerate(self.decoder_blocks):
            x = PointwiseConv(2 * x.shape[-1], use_bias=False, dtype=self.dtype, name=f"up_{level}")(x)
            x = self._stage(depth_to_space(x) + skips.pop(), time, blocks, f"decoder_{level}")
        return EndingConv3x3(c, name="ending")(x)[:, :h, :w, :]

    def _embed_time(self, t: Int[Array, " b"]) -> Float[Array, "b d"]:
        time = nn.Dense(8 * self.width, name="time_1")(sinusoidal_embedding(t, self.width))
        return nn.Dense(4 * self.width, name="time_2")(simple_gate(*jnp.split(time, 2, -1)))

    def _stage(self, x: Features, time: Float[Array, "b d"], blocks: int, name: str) -> Features:
        if blocks == 0:
            return x
        stack = nn.scan(
            nn.remat(NAFBlock, prevent_cse=False) if self.remat else NAFBlock,
            variable_axes={"params": 0, "statistics": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=blocks,
        )
        return stack(self.norm_epsilon, self.dtype, name=name)(x, time)[0]
