"""A trace of a few training steps in `FOLDER/plugins/profile/TIME`, as xprof, TensorBoard and Perfetto read it."""

from collections.abc import Callable
from pathlib import Path

import jax

from sel.cli.console import console


class Profile:
    """Traces some steps of this process, after two which compile and warm up.

    The steps before are awaited first, and the last one traced at the end: the trace holds all that host and devices do
    for these steps, and for no other. Only the first process traces.
    """

    def __init__(self, folder: Path, *, enabled: bool):
        self._folder, self._enabled = folder, enabled and jax.process_index() == 0
        # On a CPU the sparse loss alone is hundreds of thousands of events in a step, and viewers stop at a million.
        self._count = 1 if jax.default_backend() == "cpu" else 5
        self._first = self._last = 0
        self._running = False

    def __enter__(self) -> "Profile":
        """Use until the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write a trace that the end of the run has cut short; not if something went wrong, for it takes its time."""
        if kind is None and self._running:
            self._stop()
        elif kind is None and self._enabled:
            console.print("no trace was written: it begins with the third step after a start, and there was none")

    def __call__(self, step: int, wait: Callable[[], None]) -> None:
        """Tell that a step is about to begin; `wait` awaits those that have begun.

        Raises:
          OSError: if the folder can't be made.
        """
        if not self._enabled:
            return
        self._first = self._first or step + 2
        if step == self._first + self._count:
            wait()
            self._stop()
        elif step == self._first:
            self._folder.mkdir(parents=True, exist_ok=True)
            wait()
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        self._last = step

    def _stop(self) -> None:
        steps = f"step {self._first}" if self._first == self._last else f"steps {self._first} to {self._last}"
        console.print(f"writing a trace of {steps} to {self._folder}/plugins/profile ...")
        self._running = self._enabled = False
        jax.profiler.stop_trace()
        console.print(
            f"to look at it: pip install xprof && xprof {self._folder}, or the perfetto_trace.json.gz at "
            "https://ui.perfetto.dev"
        )
