"""What sweeps are made of: grids, columns side by side, and random draws that a seed repeats.

Each function gives a list of trials, a trial being the changes to its configuration: `{"loss.num_bins": 16}`. Lists of
trials join with `+` and multiply with `crossed`.
"""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Changes = dict[str, Any]
Draw = Callable[[random.Random], Any]


def grid(values: Mapping[str, Sequence[Any]]) -> list[Changes]:
    """Every combination of the values; the last key changes fastest."""
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def zipped(values: Mapping[str, Sequence[Any]]) -> list[Changes]:
    """The first values of all keys together, then the second ones.

    Raises:
      ValueError: if the keys have different numbers of values.
    """
    lengths = {key: len(column) for key, column in values.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"zipped keys must have equally many values, found {lengths}")
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def crossed(*spaces: Sequence[Changes]) -> list[Changes]:
    """Every trial of the first space with every trial of the others; where two set a key, the later one wins."""
    return [{key: value for changes in parts for key, value in changes.items()} for parts in itertools.product(*spaces)]


def sampled(count: int, draws: Mapping[str, Draw], *, seed: int) -> list[Changes]:
    """Independent random draws. The same seed repeats them, and a larger `count` adds to them.

    Raises:
      ValueError: if `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, found {count}")
    generator = random.Random(seed)
    return [{key: draw(generator) for key, draw in draws.items()} for _ in range(count)]


def uniform(low: float, high: float) -> Draw:
    """A number between two bounds, to four significant digits."""
    _check_bounds(low, high)
    return lambda generator: _rounded(generator.uniform(low, high), low, high)


def log_uniform(low: float, high: float) -> Draw:
    """A number whose logarithm is uniform, `exp(U(ln low, ln high))`, to four significant digits.

    Raises:
      ValueError: if the bounds are not positive and in order.
    """
    _check_bounds(low, high)
    if low <= 0:
        raise ValueError(f"low must be positive, found {low}")
    return lambda generator: _rounded(math.exp(generator.uniform(math.log(low), math.log(high))), low, high)


def integers(low: int, high: int) -> Draw:
    """A whole number from low to high, both included."""
    _check_bounds(low, high)
    return lambda generator: generator.randint(low, high)


def choice(values: Sequence[Any]) -> Draw:
    """One of the values."""
    return lambda generator: generator.choice(values)


def _check_bounds(low: float, high: float) -> None:
    if not low <= high:
        raise ValueError(f"low must not exceed high, found {low} and {high}")


def _rounded(value: float, low: float, high: float) -> float:
    """Four digits are enough for a hyper-parameter, and can be read in a table."""
    return min(max(float(f"{value:.4g}"), low), high)
