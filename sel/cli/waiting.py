"""What a person who waits for photographs sees."""

import datetime
import time
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn

from sel.cli.console import console

# Seconds between two lines where there is no terminal.
_QUIET = 15


class PhotographProgress:
    """A bar with the time left on a terminal; where there is none, a line now and then."""

    def __init__(self, total: int):
        self._total, self._done, self._part = total, 0, 0.0
        self._name = ""
        self._since = self._spoken = time.monotonic()
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("compiling", total=max(total, 1))

    def __enter__(self) -> "PhotographProgress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def begin(self, path: Path) -> None:
        """A photograph is begun."""
        self._name, self._part = shown(path.name), 0.0
        self._show()

    def __call__(self, done: int, total: int) -> None:
        """Of the photograph, `done` parts of `total` are done."""
        self._part = done / total
        self._show()

    def finish(self) -> None:
        """The photograph is done, or left out."""
        self._done, self._part = self._done + 1, 0.0
        self._show()

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        console.print(shown(line))

    def _show(self) -> None:
        now, done = time.monotonic(), self._done + self._part
        note = f"{min(self._done + 1, self._total)} of {self._total}  {self._name}"
        if done > 0:
            left = datetime.timedelta(seconds=round((now - self._since) * (self._total - done) / done))
            note += f"  {left} left"
        self._bar.update(self._task, completed=done, description=note)
        if not console.is_terminal and now - self._spoken > _QUIET:
            console.print(f"{100 * done / self._total:.0f}%  {note}")
            self._spoken = now


def shown(text: object) -> str:
    """Text as it can be printed: names of files need not be Unicode, and may hold line breaks."""
    return " ".join(str(text).encode(errors="surrogateescape").decode(errors="replace").split("\n"))
