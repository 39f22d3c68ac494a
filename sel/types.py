"""Axis names and the few types that cross module borders.

Axes in shape annotations: `b` batch, `h` rows, `w` columns, `c` channels, `k` windows, `l` intensity bins, `n` image
planes (one channel of one image). Images are floating point, channels last, in [0, 1] unless a function says otherwise,
with any leading axes.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

Image = Float[Array, "*batch h w c"]
PerImage = Float[Array, "*batch"]


@runtime_checkable
class NoiseFn(Protocol):
    """A noise predictor: what the diffusion knows of a network."""

    def __call__(
        self, x_t: Float[Array, "b h w c"], mu: Float[Array, "b h w c"], t: Int[Array, " b"]
    ) -> Float[Array, "b h w c"]:
        """Return the noise in `x_t`, in standard deviations, given the degraded image `mu` and the time step `t`."""
        ...
