"""Images of any size, tile by tile, with one field of noise."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from sel import diffusion
from sel.diffusion import BLOCK, Sampler, Schedule, Times
from sel.diffusion.checks import as_key, check_prediction
from sel.restoration.tiles import MARGIN, MULTIPLE, Tiles, lay_tiles, squares
from sel.restoration.whole import Images, make_restore

Pixels = Float[np.ndarray, "h w c"]
Report = Callable[[int, int], object]

# Compiled programs take 10 to 40 MB each; a folder of photographs has few sizes, the visitors of a page have any.
_SHAPES = 8


class PerShape:
    """`jax.jit(function)` that keeps its programs for the last few shapes of its first argument.

    `jax.jit` keeps one for each shape that it has ever seen.
    """

    def __init__(self, function: Callable[..., Any]):
        # A new object each time: jit keeps programs as long as the function that it was given.
        programs = functools.lru_cache(maxsize=_SHAPES)(lambda shape: jax.jit(functools.partial(function)))
        self._programs = programs

    def __call__(self, images: Any, *others: Any) -> Any:
        """Call the program for `images.shape`."""
        return self._programs(images.shape)(images, *others)

    def kept(self) -> int:
        """Number of shapes whose programs are kept."""
        return self._programs.cache_info().currsize


class _Grid(NamedTuple):
    """Where things lie in an extended image: tiles for the network, and pieces that take a step at a time."""

    rows: Tiles
    columns: Tiles
    pieces: list[tuple[tuple[slice, slice], tuple[int, int]]]  # places, and the blocks of noise where they begin
    margins: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    @property
    def tiles(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)


class TiledRestore:
    """`make_restore` for images of any size, in memory that the tile bounds but for a few copies of the image.

    Images are extended by their mirror image on all four sides, so that the border of what the network sees lies
    outside. A small image is one tile. Of a large one every step of the sampler predicts the noise tile by tile, blends
    the predictions, and then takes one step of the whole image, so that tiles never drift apart and there is one field
    of noise. The channel attention of the network, whose means would differ between tiles, gets in each step the means
    over squares from all parts of the image.

    Programs are kept for the last 8 shapes of tiles: memory does not grow with the number of different sizes.

    Attributes:
      sampler: takes the steps.
      whole: `make_restore`, of which a small image, extended, gets the values, up to rounding.
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
        if overlap < 0 or overlap % MULTIPLE:
            raise ValueError(f"overlap must be a multiple of {MULTIPLE} of at least 0, found {overlap}")
        if tile < 4 * overlap or tile < BLOCK or tile % BLOCK:
            raise ValueError(f"tile must be a multiple of {BLOCK} of at least 4 overlaps, {4 * overlap}, found {tile}")
        self._tile, self._overlap = tile, overlap
        self.sampler = sampler = diffusion.make_sampler(sampler)
        self._times = diffusion.sampling_times(schedule, num_steps=num_steps)
        self.whole = make_restore(module, schedule, sampler=sampler, num_steps=num_steps)

        def predict(x_t: Images, mu: Images, t: Array, params: Any, statistics: Any) -> Images:
            arguments = (x_t, mu, jnp.full(len(mu), t))
            noise_hat = module.apply({"params": params, "statistics": statistics}, *arguments)
            return check_prediction(noise_hat, x_t)

        def measure(x_t: Images, mu: Images, t: Array, params: Any) -> Any:
            arguments = (x_t, mu, jnp.full(len(mu), t))
            return module.apply({"params": params}, *arguments, mutable=["statistics"])[1].get("statistics", {})

        def start(mu: Images, key: PRNGKeyArray, block: tuple[Array, Array]) -> tuple[Images, Any]:
            noise = diffusion.noise_field(jax.random.fold_in(key, 0), mu.shape, first_block=block)
            x_t = diffusion.start_state(schedule, mu, noise)
            return x_t, sampler.start(x_t)

        def advance(
            x_t: Images,
            mu: Images,
            noise_hat: Images,
            state: Any,
            times: Times,
            key: PRNGKeyArray,
            block: tuple[Array, Array],
        ) -> tuple[Images, Any]:
            x_s, spread, state = sampler.step(schedule, x_t, mu, noise_hat, state, times)
            if spread is not None:
                key = jax.random.fold_in(key, times.t)
                x_s = x_s + spread * diffusion.noise_field(key, mu.shape, first_block=block)
            return x_s, state

        self._predict, self._measure = PerShape(predict), PerShape(measure)
        self._start, self._advance = PerShape(start), PerShape(advance)

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
        grid = self._lay(height, width)
        mu = np.pad(mu, grid.margins, mode="symmetric")
        x0 = self._sample(as_key(key), params, mu, grid, report or (lambda done, total: None))
        return np.clip(x0[MARGIN : MARGIN + height, MARGIN : MARGIN + width], 0, 1)

    def _lay(self, height: int, width: int) -> _Grid:
        rows, columns = (lay_tiles(size, tile=self._tile, overlap=self._overlap) for size in (height, width))
        one = len(rows.starts) == len(columns.starts) == 1
        # What takes a step at a time is no larger than a tile, and of one shape: the last pieces may reach beyond it.
        h, w = (rows.total, columns.total) if one else (BLOCK, self._tile)
        corners = [(i, j) for i in range(0, rows.total, h) for j in range(0, columns.total, w)]
        pieces = [((slice(i, i + h), slice(j, j + w)), (i // BLOCK, j // BLOCK)) for i, j in corners]
        after = [
            -(-axis.total // side) * side - size - MARGIN
            for axis, side, size in ((rows, h, height), (columns, w, width))
        ]
        return _Grid(rows, columns, pieces, ((MARGIN, after[0]), (MARGIN, after[1]), (0, 0)))

    def _sample(self, key: PRNGKeyArray, params: Any, mu: Pixels, grid: _Grid, report: Report) -> Pixels:
        count, x, states = len(self._times.t), np.empty_like(mu), []
        for place, block in grid.pieces:
            x_t, state = self._start(mu[None, *place], key, block)
            x[place] = x_t[0]
            states.append(jax.tree.map(np.asarray, state))
        for index in range(count):
            times = Times(*(values[index] for values in self._times))

            def tell(done: int, index: int = index) -> None:
                report(index * grid.tiles + done, count * grid.tiles)

            noise_hat = self._blended(params, x, mu, times.t, grid, tell)
            for number, (place, block) in enumerate(grid.pieces):
                arguments = (x[None, *place], mu[None, *place], noise_hat[None, *place], states[number])
                x_s, state = self._advance(*arguments, times, key, block)
                x[place], states[number] = x_s[0], jax.tree.map(np.asarray, state)
        return x

    def _blended(
        self, params: Any, x: Pixels, mu: Pixels, t: Array, grid: _Grid, tell: Callable[[int], object]
    ) -> Pixels:
        """The noise predicted for a whole image; `tell(done)` hears of tiles."""
        rows, columns = grid.rows, grid.columns
        places = [(i, j) for i in range(len(rows.starts)) for j in range(len(columns.starts))]
        statistics: Any = {}  # one tile has the means of the whole image anyway
        if len(places) > 1:
            parts = squares(rows.total, columns.total)
            patches = [np.stack([image[square] for square in parts]) for image in (x, mu)]
            statistics = self._measure(*patches, t, params)
        noise_hat = np.zeros_like(mu)
        for done, (i, j) in enumerate(places, start=1):
            top, left = rows.starts[i], columns.starts[j]
            place = (slice(top, top + rows.length), slice(left, left + columns.length))
            predicted = np.asarray(self._predict(x[None, *place], mu[None, *place], t, params, statistics)[0])
            noise_hat[place] += rows.weight(i)[:, None, None] * columns.weight(j)[None, :, None] * predicted
            tell(done)
        return noise_hat
