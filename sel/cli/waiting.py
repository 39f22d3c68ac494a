"""What a person who waits for photographs sees."""

from pathlib import Path

from sel.cli.console import console
from sel.cli.progress import Progress


class PhotographProgress:
    """How many photographs are done, and how far the one that is being enhanced is."""

    def __init__(self, total: int):
        self._total, self._done, self._part = total, 0, 0.0
        self._name = ""
        self._progress = Progress("enhancing", max(total, 1))

    def __enter__(self) -> "PhotographProgress":
        """Show the bar."""
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._progress.__exit__()

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
        done = self._done + self._part
        number = f"{min(self._done + 1, self._total)} of {self._total}"
        percent = f"{100 * done / max(self._total, 1):.0f}%"
        self._progress(done, note=f"{number}  {self._name}", count=percent)


def shown(text: object) -> str:
    """Text as it can be printed: names of files need not be Unicode, and may hold line breaks."""
    return " ".join(str(text).encode(errors="surrogateescape").decode(errors="replace").split("\n"))
