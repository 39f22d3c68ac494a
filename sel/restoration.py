"""Where use meets: a network, its parameters and a schedule become a function from dark images to bright ones."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from sel import diffusion
from sel.diffusion import BLOCK, Sampler, Schedule, Times

Images = Float[Array, "b h w c"]
Pixels = Float[np.ndarray, "h w c"]
Restore = Callable[[PRNGKeyArray, Any, Images], Images]
Report = Callable[[int, int], object]

# Images are extended to a multiple of this, so that a folder of odd sizes compiles few shapes; tiles begin at one.
_MULTIPLE = 32
# The statistics of a large image are those of so many squares of so many pixels, per axis.
_SQUARES, _SQUARE = 4, 96


def make_restore(
    module: nn.Module, schedule: Schedule, *, sampler: Sampler | str = "posterior", num_steps: int | None = None
) -> Restore:
    """Compile `restore(key, params, mu) -> x0_hat`, clipped to [0, 1].

    Args:
      module: the noise predictor; `module.apply({"params": params}, x_t, mu, t)`.
      schedule: the diffusion that it was trained with.
      sampler: see `sel.diffusion.sample`.
      num_steps: of the sampler; None: as many as the diffusion has.

    Returns:
      A jitted function. It compiles once for each shape of `mu`.

    Raises:
      ValueError: an unknown sampler, or `num_steps` out of range.
    """
    sampler = diffusion.make_sampler(sampler)
    num_steps = len(diffusion.sampling_times(schedule, num_steps=num_steps).t)

    @jax.jit
    def restore(key: PRNGKeyArray, params: Any, mu: Images) -> Images:
        def noise_fn(x_t, mu, t):
            return module.apply({"params": params}, x_t, mu, t)

        x0 = diffusion.sample(key, noise_fn, mu, schedule=schedule, sampler=sampler, num_steps=num_steps)
        return jnp.clip(cast(Images, x0), 0, 1)

    return restore


class Tiles(NamedTuple):
    """Equal tiles along one axis, each overlapping the next; one tile where it suffices.

    Attributes:
      total: pixels that they cover: those of the axis, and some more up to a multiple of 32.
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
    """Cover `size` pixels evenly: with one tile of up to `tile` pixels, or with several of exactly that."""
    total = -(-size // _MULTIPLE) * _MULTIPLE
    if total <= tile:
        return Tiles(total, total, (0,), 0)
    count = -(-(total - overlap) // (tile - overlap))
    # Where networks halve the resolution: tiles must agree on which pixels come together.
    starts = np.rint(np.linspace(0, (total - tile) // _MULTIPLE, count)).astype(int) * _MULTIPLE
    return Tiles(total, tile, tuple(starts.tolist()), overlap)


class TiledRestore:
    """`make_restore` for images of any size, in memory that the tile bounds but for a few copies of the image.

    A small image is one tile. Of a large one every step of the sampler predicts the noise tile by tile, blends the
    predictions, and then takes one step of the whole image, so that tiles never drift apart and there is one field of
    noise. The channel attention of the network, whose means would differ between tiles, gets in each step the means
    over squares from all parts of the image.

    Attributes:
      sampler: takes the steps.
      whole: `make_restore`, of which a small image gets the values, up to rounding.
    """

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        *,
        sampler: Sampler | str = "posterior",
        num_steps: int | None = None,
        tile: int = 640,
        overlap: int = 64,
    ):
        """Prepare.

        Args:
          module: as in `make_restore`.
          schedule: as in `make_restore`.
          sampler: as in `make_restore`.
          num_steps: as in `make_restore`.
          tile: largest side of a tile, a multiple of 64 of at least 4 overlaps.
          overlap: pixels over which two tiles blend, a multiple of 32.

        Raises:
          ValueError: `tile` or `overlap` is none of those, or as in `make_restore`.
        """
        if overlap < 0 or overlap % _MULTIPLE:
            raise ValueError(f"overlap: got {overlap}, expected a multiple of {_MULTIPLE}")
        if tile < 4 * overlap or tile < BLOCK or tile % BLOCK:
            raise ValueError(f"tile: got {tile}, expected a multiple of {BLOCK} of at least 4 overlaps, {4 * overlap}")
        self._lay = partial(lay_tiles, tile=tile, overlap=overlap)
        self.sampler = sampler = diffusion.make_sampler(sampler)
        self._times = diffusion.sampling_times(schedule, num_steps=num_steps)
        self.whole = make_restore(module, schedule, sampler=sampler, num_steps=num_steps)

        @jax.jit
        def predict(params: Any, statistics: Any, x_t: Images, mu: Images, t: Array) -> Images:
            arguments = (x_t, mu, jnp.full(len(mu), t))
            return cast(Images, module.apply({"params": params, "statistics": statistics}, *arguments))

        @jax.jit
        def measure(params: Any, x_t: Images, mu: Images, t: Array) -> Any:
            arguments = (x_t, mu, jnp.full(len(mu), t))
            return module.apply({"params": params}, *arguments, mutable=["statistics"])[1].get("statistics", {})

        @jax.jit
        def start(key: PRNGKeyArray, mu: Images, block: Array) -> Images:
            noise = diffusion.noise_field(jax.random.fold_in(key, 0), mu.shape, first_block=block)
            return diffusion.start_state(schedule, mu, noise)

        @jax.jit
        def advance(
            key: PRNGKeyArray, x_t: Images, mu: Images, noise_hat: Images, state: Any, times: Times, block: Array
        ) -> tuple[Images, Any]:
            x_s, spread, state = sampler.step(schedule, x_t, mu, noise_hat, state, times)
            if spread is not None:
                key = jax.random.fold_in(key, times.t)
                x_s = x_s + spread * diffusion.noise_field(key, mu.shape, first_block=block)
            return x_s, state

        self._predict, self._measure, self._start, self._advance = predict, measure, start, advance

    def __call__(self, key: PRNGKeyArray, params: Any, mu: Pixels, report: Report | None = None) -> Pixels:
        """Restore one image.

        Args:
          key: random key.
          params: of the network.
          mu: the degraded image, in [0, 1], float32.
          report: called as `report(done, total)` after each part of the work.

        Returns:
          The restored image, in [0, 1].
        """
        height, width = mu.shape[:2]
        rows, columns = self._lay(height), self._lay(width)
        mu = np.pad(mu, ((0, rows.total - height), (0, columns.total - width), (0, 0)), mode="symmetric")
        x0 = self._sample(key, params, mu, (rows, columns), report or (lambda done, total: None))
        return np.clip(x0[:height, :width], 0, 1)

    def _sample(self, key: PRNGKeyArray, params: Any, mu: Pixels, grid: tuple[Tiles, Tiles], report: Report) -> Pixels:
        tiles, count = len(grid[0].starts) * len(grid[1].starts), len(self._times.t)
        # The part that takes a step at a time is no larger than a tile.
        strip_height = len(mu) if tiles == 1 else BLOCK
        strips = [(slice(row, row + strip_height), row // BLOCK) for row in range(0, len(mu), strip_height)]
        x = np.empty_like(mu)
        for strip, block in strips:
            x[strip] = self._start(key, mu[None, strip], block)[0]
        state = jax.tree.map(np.array, self.sampler.start(jnp.asarray(x[None])))
        for index in range(count):
            times = Times(*(values[index] for values in self._times))

            def tell(done: int, index: int = index) -> None:
                report(index * tiles + done, count * tiles)

            noise_hat = self._blended(params, x, mu, times.t, grid, tell)
            for strip, block in strips:
                arguments = (x[None, strip], mu[None, strip], noise_hat[None, strip])
                part = jax.tree.map(lambda leaf, strip=strip: leaf[:, strip], state)
                x_s, part = self._advance(key, *arguments, part, times, block)
                x[strip] = x_s[0]
                jax.tree.map(lambda leaf, new, strip=strip: np.copyto(leaf[:, strip], new), state, part)
        return x

    def _blended(
        self,
        params: Any,
        x: Pixels,
        mu: Pixels,
        t: Array,
        grid: tuple[Tiles, Tiles],
        tell: Callable[[int], object],
    ) -> Pixels:
        """The noise predicted for a whole image; `tell(done)` hears of tiles."""
        rows, columns = grid
        places = [(i, j) for i in range(len(rows.starts)) for j in range(len(columns.starts))]
        statistics: Any = {}  # one tile has the means of the whole image anyway
        if len(places) > 1:
            patches = [np.stack([image[square] for square in _squares(*mu.shape[:2])]) for image in (x, mu)]
            statistics = self._measure(params, *patches, t)
        noise_hat = np.zeros_like(mu)
        for done, (i, j) in enumerate(places, start=1):
            top, left = rows.starts[i], columns.starts[j]
            place = (slice(top, top + rows.length), slice(left, left + columns.length))
            predicted = np.asarray(self._predict(params, statistics, x[None, *place], mu[None, *place], t)[0])
            noise_hat[place] += rows.weight(i)[:, None, None] * columns.weight(j)[None, :, None] * predicted
            tell(done)
        return noise_hat


def _squares(height: int, width: int) -> list[tuple[slice, slice]]:
    """Squares spread evenly over an image."""

    def places(size: int) -> list[slice]:
        side = min(_SQUARE, size)
        return [slice(start, start + side) for start in np.linspace(0, size - side, _SQUARES).round().astype(int)]

    return [(row, column) for row in places(height) for column in places(width)]
