"""A photograph as people have it: what is read is written back, in its depth, channels and metadata."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from sel.images.metadata import Metadata
from sel.images.picture import Alpha, Color, to_8_bits

# Grey of a colour, as in Pillow and ITU-R BT.601.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Photograph:
    """A photograph, upright, with the values of its file.

    A colour profile is kept and not applied, except that of CMYK, which becomes sRGB.

    Attributes:
      color: one channel (grey) or three, 8 or 16 bits, not multiplied by the opacity.
      alpha: its opacity, of the same type, or None.
      metadata: what else its file says.
      note: what is wrong with the file although its pixels are whole, or "".
    """

    color: Color
    alpha: Alpha | None
    metadata: Metadata
    note: str = ""

    def intensities(self) -> Float[np.ndarray, "h w 3"]:
        """The colour, in [0, 1]; grey three times."""
        scaled = self.color.astype(np.float32) / np.float32(np.iinfo(self.color.dtype).max)
        return np.repeat(scaled, 3, axis=-1) if scaled.shape[-1] == 1 else scaled

    def rgb(self) -> UInt8[np.ndarray, "h w 3"]:
        """8-bit RGB, to the nearest level; what is transparent lies over black: no picture, no light."""
        color = to_8_bits(self.color)
        if self.alpha is not None:
            white = np.iinfo(self.alpha.dtype).max
            light = self.color.astype(np.float32) * self.alpha
            color = np.rint(light * np.float32(255 / white**2)).astype(np.uint8)
        return np.repeat(color, 3, axis=-1) if color.shape[-1] == 1 else color

    def replaced(self, intensities: Float[np.ndarray, "h w 3"]) -> "Photograph":
        """The photograph with another colour, in [0, 1]; one that is grey stays grey."""
        if self.color.shape[-1] == 1:
            intensities = (intensities @ _GREY)[..., None]
        white = np.iinfo(self.color.dtype).max
        return replace(self, color=np.rint(np.clip(intensities, 0, 1) * white).astype(self.color.dtype))
