"""How far a program is: a bar on a terminal, and a line now and then where there is none."""

import collections
import datetime
import math
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich import progress as bars
from rich.console import Console

from sel.cli import console as sel_console

T = TypeVar("T")

# Seconds between two lines where there is no terminal.
_QUIET = 15
# The speed is that of so many past reports: what was slow at first is soon forgotten.
_REMEMBERED = 50


class Progress:
    """Amount done and time left.

    The time until the first report is not counted: it is that of compiling, reading or connecting.
    """

    def __init__(self, doing: str, total: int | float = 0, *, unit: str = "", output: Console | None = None):
        """Begin.

        Args:
          doing: what is done.
          total: how much there is; a report may tell, too.
          unit: of what is done, whose number per second is shown. With it the last line is always printed.
          output: where to.
        """
        self._doing, self._total, self._unit = doing, total, unit
        self._output = output or sel_console.console
        self._past: collections.deque[tuple[int | float, float]] = collections.deque(maxlen=_REMEMBERED)
        self._spoken = time.monotonic()
        columns = (bars.BarColumn(), bars.TextColumn("{task.description}", markup=False))
        self._bar = bars.Progress(*columns, console=self._output, disable=not self._output.is_terminal)
        self._task = self._bar.add_task(f"{doing} ...", total=total or None)

    def __enter__(self) -> "Progress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def __call__(self, done: int | float, total: int | float | None = None, *, note: str = "", count: str = "") -> None:
        """Report.

        Args:
          done: how much is done, parts of one included.
          total: how much there is, if it was not known.
          note: is shown.
          count: is shown for `DONE/TOTAL`.
        """
        now, self._total = time.monotonic(), total or self._total
        if not self._past or done > self._past[-1][0]:
            self._past.append((done, now))
        text = "  ".join(
            filter(None, [f"{self._doing} {count or f'{done:g}/{self._total:g}'}", note, self._left(done)])
        )
        self._bar.update(self._task, completed=done, total=self._total, description=text)
        last = done >= self._total and bool(self._unit)
        if not self._output.is_terminal and (now - self._spoken > _QUIET or last):
            self._output.print(text)
            self._spoken = now

    def _left(self, done: int | float) -> str:
        (first, since), (last, until) = self._past[0], self._past[-1]
        if last == first or done >= self._total:
            return ""
        speed = (last - first) / max(until - since, 1e-6)
        left = datetime.timedelta(seconds=round((self._total - done) / speed))
        return (f"{speed:.2f} {self._unit}/s  " if self._unit else "") + f"{left} left"


class StepProgress:
    """Loss, speed and time left of training."""

    def __init__(self, total: int):
        self._losses: collections.deque[float] = collections.deque(maxlen=20)
        self._progress = Progress("step", total, unit="steps")

    def __enter__(self) -> "StepProgress":
        """Show the bar."""
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._progress.__exit__()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Report one finished step."""
        if math.isfinite(metrics["loss"]):
            self._losses.append(metrics["loss"])
        self._progress(step, note=f"loss {sum(self._losses) / max(len(self._losses), 1):.4f}")


def with_progress(items: Sequence[T], doing: str) -> Iterator[T]:
    """Iterate, and show how far this is."""
    with Progress(doing, len(items)) as progress:
        for done, item in enumerate(items):
            if done:
                progress(done)
            yield item
        progress(len(items))
