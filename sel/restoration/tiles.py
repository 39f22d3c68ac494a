"""Where the parts of an image lie: margins around it, tiles that overlap, squares for its statistics."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Images are extended to a multiple of this, so that a folder of odd sizes compiles few shapes; tiles begin at one.
MULTIPLE = 32
# And by at least this on all four sides: convolutions take what lies outside as black, and a network that has seen few
# borders puts noise there. docs/enhance.md has the measurement.
MARGIN = 8
# The statistics of a large image are those of so many squares of so many pixels, per axis.
_SQUARES, _SQUARE = 4, 96


class Tiles(NamedTuple):
    """Equal tiles along one axis of an extended image, each overlapping the next; one tile where it suffices.

    Attributes:
      total: pixels that they cover: a margin, those of the axis, and a margin up to a multiple of 32.
      length: pixels of each.
      starts: the first pixel of each.
      ramp: pixels over which a tile gives way to the next, in the middle of what they share.
    """

    total: int
    length: int
    starts: tuple[int, ...]
    ramp: int

    def weight(self, index: int) -> Float[np.ndarray, " n"]:
        """Weights of a tile. Those of all tiles that cover a pixel sum to 1: squares of a sine and of its cosine."""
        start, places = self.starts[index], np.arange(self.length) + 0.5
        weight = np.ones(self.length)
        for other, rises in ((index - 1, True), (index + 1, False)):
            if 0 <= other < len(self.starts):
                middle = (self.starts[other] - start + self.length) / 2
                share = np.sin(np.clip((places - middle) / max(1, self.ramp) + 0.5, 0, 1) * np.pi / 2) ** 2
                weight *= share if rises else 1 - share
        return weight.astype(np.float32)


def lay_tiles(size: int, *, tile: int, overlap: int) -> Tiles:
    """Cover `size` pixels and their margins: with one tile of up to `tile` pixels, or with several of exactly that."""
    total = extended(size)
    if total <= tile:
        return Tiles(total, total, (0,), 0)
    count = -(-(total - overlap) // (tile - overlap))
    # Where networks halve the resolution: tiles must agree on which pixels come together.
    starts = np.rint(np.linspace(0, (total - tile) // MULTIPLE, count)).astype(int) * MULTIPLE
    # What lies at the border of a tile inside the image has no weight either.
    return Tiles(total, tile, tuple(starts.tolist()), max(0, overlap - 2 * MARGIN))


def extended(size: int) -> int:
    """Pixels of an axis with its margins: the first has `MARGIN` pixels, the last as many or more."""
    return -(-(size + 2 * MARGIN) // MULTIPLE) * MULTIPLE


def squares(height: int, width: int) -> list[tuple[slice, slice]]:
    """Squares spread evenly over an image."""

    def places(size: int) -> list[slice]:
        side = min(_SQUARE, size)
        return [slice(start, start + side) for start in np.linspace(0, size - side, _SQUARES).round().astype(int)]

    return [(row, column) for row in places(height) for column in places(width)]
