"""Loops that XLA's CPU runtime can run at the same time, on several threads.

XLA compiles a loop into steps that run one after another on one thread. Loops that do not depend on each other may run
side by side, but on three conditions that the runtime does not document (read in XLA's sources, and measured):

- More than eight steps must be ready at once, or the runtime keeps them all to the thread that it is on: hence at least
  `FEWEST` loops.
- No two loops may share memory, not even for a value that lives only within a pass: XLA gives such values of one loop
  the memory of those of another, as if the loops came in turn. All that a pass computes must therefore be written
  into buffers that the loop carries (`store`), the counter and the decision to go on included.
- What a loop carries must be written in place, or XLA copies it first to memory that is shared again. The counter
  can be if it visibly changes after everything that reads it.

Where a condition does not hold, on other devices, or on one core, the loops do the same in turn.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

# One is taken at once, and more than eight must be left.
FEWEST = 10


def loop(trips: Array, body: Callable[[Array, Any], Any], carry: Any) -> Any:
    """`lax.fori_loop(0, trips, body, carry)` of which several can run at the same time.

    Args:
      trips: number of passes, below 2^24.
      body: function of the number of the pass and of what is carried. It should `store` all that it computes and reads
        more than once.
      carry: what is carried, arrays.

    Returns:
      What is carried in the end.
    """
    trips = trips.astype(jnp.float32)

    def one_pass(state):
        _, i, carry = state
        carry = body(i.astype(jnp.int32), carry)
        # A division, because XLA computes anything cheaper a second time for the comparison, from the old counter.
        i = (i + 1) / (1 + _zero_after(carry))
        return i < trips, i, carry

    start = trips > 0, lax.full_like(trips, 0), carry
    return lax.while_loop(lambda state: state[0], one_pass, start)[2]


def _zero_after(carry: Any) -> Array:
    """0, of which XLA does not know that it is: so that what it is added to comes after all of `carry`."""
    numbers = (x.ravel()[0] for x in jax.tree.leaves(carry))
    return sum(((x == x) & (x != x)).astype(jnp.float32) for x in numbers)


def buffers(count: int, like: Array, shape: tuple[int, ...]) -> list[Array]:
    """Zeros for `count` arrays of this shape: one row more than is used, or XLA sees through `store`."""
    return [lax.full_like(like, 0, shape=(shape[0] + 1, *shape[1:])) for _ in range(count)]


def store(into: Sequence[Array], values: Sequence[Array], start: int = 0) -> tuple[list[Array], list[Array]]:
    """The buffers with the values written into them, from `start` on along the last axis, and what to read of them.

    XLA does not merge what is written here with what reads it. Merged, a stage of a computation would be computed
    again for every pixel of a window.
    """

    def write(buffer, value):
        return lax.dynamic_update_slice(buffer, value, (0,) * (value.ndim - 1) + (start,))

    stored = [write(x, y) for x, y in zip(into, values, strict=True)]
    return stored, [x[:-1] for x in stored]


def evenly(work: Array) -> Array:
    """An order of tasks in which the first and the second half have about as much work: one thread takes each."""
    halves = ([rank for rank in range(len(work)) if rank % 4 in places] for places in ((0, 3), (1, 2)))
    first, second = sorted(halves, key=len, reverse=True)
    return jnp.argsort(-work)[jnp.array(first + second)]


def group_size(count: Any) -> int:
    """How many of `count` tasks to do together: enough loops for several threads, few left over in the last group.

    A few tasks are done one by one, before more loops are compiled (12 take 4 s, one 1.5 s). A symbolic number, as
    `jax.export` has it, is taken for a large one.
    """
    if not isinstance(count, int | np.integer):
        return FEWEST
    if count <= 2 * FEWEST:
        return 1
    return min(range(FEWEST, 2 * FEWEST), key=lambda size: -(-count // size) * size)
