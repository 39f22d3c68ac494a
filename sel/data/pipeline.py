"""Training batches from decoded pairs, in memory or mapped from the cache.

Each is a function of (seed, step) alone, so that a run resumes anywhere exactly.
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from sel.data.augment import cut, draw_crops, smallest_side
from sel.data.pairs import Pair
from sel.errors import UserError
from sel.extras import needs
from sel.images.storage import OnProblem, refuse

# Images as UInt8[b s s 3], and the numbers of their pairs.
Batch = dict[str, np.ndarray]
# `grain.MapDataset[Batch]` and `grain.DatasetIterator[Batch]`. Grain is imported where it is used: whoever enhances
# photographs has no need of it.
Dataset = Any
Batches = Any


def training_dataset(
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    crop_size: int,
    seed: int,
    resize_chance: float = 0.0,
    process_index: int = 0,
    process_count: int = 1,
) -> Dataset:
    """Build the endless dataset of training batches, addressed by step.

    Every epoch takes each pair once, in a new order; each gives a random square, turned by right angles and mirrored,
    mu and x0 alike. Epochs follow without a gap: a batch may hold the end of one and the start of the next. The global
    batch is drawn first and then split: the parts of all processes, concatenated, do not depend on their number.

    Args:
      pairs: decoded pairs.
      batch_size: images per step over all processes.
      crop_size: side of the squares in pixels; the published training uses 128.
      seed: seed of order and crops, at least 0.
      resize_chance: probability in [0, 1] that a pair is shrunk to 0.8 before it is cut; published: 0.2.
      process_index: which part of the global batch to yield.
      process_count: number of equal parts.

    Returns:
      A dataset whose `dataset[step]` is `{"mu": uint8, "x0": uint8, "index": int}`: images of the shape
      `[batch_size / process_count, crop_size, crop_size, 3]`, and of which pairs all processes' images are.

    Raises:
      UserError: if an image is smaller than the crop (times 1.25 with resizing).
      ValueError: if an argument is out of range.
    """
    with needs("train"):
        import grain

    _check_arguments(batch_size, crop_size, seed, resize_chance, process_index, process_count)
    if not pairs:
        raise ValueError("pairs is empty: there is nothing to train on")
    large_enough(pairs, crop_size=crop_size, resize_chance=resize_chance)
    shapes = [pair.x0.shape[:2] for pair in pairs]
    share = batch_size // process_count
    first = share * process_index

    # Grain's own shuffle takes milliseconds per element when there are few: a permutation per epoch is cheap.
    @functools.lru_cache(maxsize=8)
    def epoch_order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(len(pairs))

    def cut_batch(step: int, rng: np.random.Generator) -> Batch:
        drawn = (divmod(number, len(pairs)) for number in range(step * batch_size, (step + 1) * batch_size))
        indices = [epoch_order(epoch)[place] for epoch, place in drawn]
        crops = draw_crops(rng, [shapes[i] for i in indices], crop_size, resize_chance)
        batch = {name: np.empty((share, crop_size, crop_size, 3), np.uint8) for name in ("mu", "x0")}
        for row in range(share):
            pair, crop = pairs[indices[first + row]], crops[first + row]
            batch["mu"][row] = cut(pair.mu, crop, crop_size)
            batch["x0"][row] = cut(pair.x0, crop, crop_size)
        return batch | {"index": np.array(indices)}

    return grain.MapDataset.range(sys.maxsize // batch_size).seed(seed).random_map(cut_batch)


def large_enough(
    pairs: Sequence[Pair], *, crop_size: int, resize_chance: float = 0.0, report: OnProblem | None = None
) -> tuple[Pair, ...]:
    """Leave out pairs that are smaller than the crops that training takes.

    Args:
      pairs: decoded pairs.
      crop_size: side of the crops in pixels.
      resize_chance: if above 0, pairs may be shrunk to 0.8 first, and must be larger by as much.
      report: told of each pair that is left out; without it, one too small raises.

    Returns:
      The others, in the same order.

    Raises:
      UserError: if None is left; without `report`, one is too small.
    """
    least = smallest_side(crop_size, resize_chance)
    shrunk = f" from images shrunk to 0.8 (resize_chance {resize_chance})" if resize_chance > 0 else ""
    rule = f"too small for crops of {crop_size} pixels{shrunk}, which need at least {least} x {least}"
    small = [pair for pair in pairs if min(pair.x0.shape[:2]) < least]
    if small and (report is None or len(small) == len(pairs)):
        height, width, _ = small[0].x0.shape
        raise UserError(
            f"{len(small)} of {len(pairs)} pairs are {rule}; the first is {small[0].name}, {height} x {width}"
        )
    for pair in small:
        refuse(report, f"pair {pair.name}, {pair.x0.shape[0]} x {pair.x0.shape[1]}, is {rule}")
    return tuple(pair for pair in pairs if min(pair.x0.shape[:2]) >= least)


def batches(dataset: Dataset, start_step: int = 0, *, prefetch: int = 4, threads: int = 2) -> Batches:
    """Iterate over batches from `start_step` on, in order, prepared ahead by threads.

    Args:
      dataset: what `training_dataset` returned.
      start_step: step of the first batch, at least 0.
      prefetch: batches prepared ahead, at least 0; 0 prepares each when it is asked for, without threads.
      threads: threads that prepare them, at least 1; batches and their order do not depend on it.

    Returns:
      An endless iterator; `close()` stops its threads, `get_state()` and `set_state()` mark a place and return to it.

    Raises:
      ValueError: if an argument is out of range.
    """
    with needs("train"):
        import grain

    if start_step < 0 or prefetch < 0:
        raise ValueError(f"start_step and prefetch must be at least 0, found {start_step} and {prefetch}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, found {threads}")
    options = grain.ReadOptions(num_threads=min(prefetch, threads), prefetch_buffer_size=prefetch)
    return iter(dataset[start_step:].to_iter_dataset(options))


def _check_arguments(
    batch_size: int, crop_size: int, seed: int, resize_chance: float, process_index: int, process_count: int
) -> None:
    if batch_size < 1 or crop_size < 1:
        raise ValueError(f"batch_size and crop_size must be at least 1, found {batch_size} and {crop_size}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, found {seed}")
    if not 0 <= resize_chance <= 1:
        raise ValueError(f"resize_chance must lie in [0, 1], found {resize_chance}")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must lie in 0..process_count - 1, found {process_index} of {process_count}")
    if batch_size % process_count:
        raise ValueError(f"batch_size must be a multiple of process_count, found {batch_size} and {process_count}")
