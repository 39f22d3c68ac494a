"""How a run is asked to end: Ctrl-C, or SIGTERM, by which clusters announce that they take a machine back."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

from sel.cli.console import console

# That of BSD's sysexits for "try again later": the state is saved, and the same command goes on.
PREEMPTED = 75
INTERRUPTED = 130


class StopSignals:
    """Remembers the first Ctrl-C or SIGTERM, so that training can save its state; a second Ctrl-C ends it at once.

    Of several processes each may be told, at different steps: JAX hears SIGTERM itself and makes them agree on a step.
    Ctrl-C then ends them without saving.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        """Listen."""
        if jax.process_count() == 1:
            self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def __call__(self, step: int) -> bool:
        """Whether training is to end after this step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received is not None

    @property
    def status(self) -> int:
        """What the program exits with."""
        return INTERRUPTED if self._received == signal.SIGINT else PREEMPTED

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._received = number
        console.print("saving the state ...")
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
