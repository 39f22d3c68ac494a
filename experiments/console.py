"""What the programs share in talking to a person: one line for a mistake, a progress bar, a table of scores."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sel.errors import UserError

console = Console(soft_wrap=True)


def run(main: Callable[[], None]) -> None:
    """Parse the command line and run `main`; a `UserError` or wrong flag ends it with one line on stderr and status 1."""

    def guarded(arguments: Sequence[str]) -> None:
        # Orbax reports every checkpoint in a dozen lines.
        logging.set_verbosity(logging.ERROR)
        warnings.filterwarnings("ignore", module="orbax")
        try:
            if len(arguments) > 1:
                raise UserError(f"unexpected argument {arguments[1]!r}; options are written --name=value")
            main()
        except UserError as error:
            _fail(error)
        except KeyboardInterrupt:
            _fail("interrupted")

    app.run(guarded, flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(list(arguments))
    except SystemExit:
        raise
    except Exception as error:  # a configuration file runs any code, and raises what it likes
        lines = str(error).strip().splitlines() or [type(error).__name__]
        _fail(lines[0])


def _fail(message: Any) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def plain(config: ConfigDict) -> dict[str, Any]:
    """The configuration as dictionaries and lists, as JSON would give it back."""
    return json.loads(config.to_json())


class StepProgress:
    """A bar with loss, speed and time left on a terminal; a line now and then where there is none."""

    def __init__(self, total: int, unit: str = "step"):
        self._total, self._unit = total, unit
        self._first: tuple[int, float] | None = None
        self._loss = 0.0
        self._spoken = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, note="compiling")

    def __enter__(self) -> "StepProgress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Report one finished step."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._loss = (step, now), metrics["loss"]
        self._loss += 0.05 * (metrics["loss"] - self._loss)
        first, since = self._first
        speed = (step - first) / (now - since) if step > first else 0.0
        note = f"loss {self._loss:.4f}  {speed:.2f} steps/s"
        self._bar.update(self._task, completed=step, note=note)
        if not console.is_terminal and (now - self._spoken > 15 or step == self._total):
            left = f", {(self._total - step) / speed:.0f} s left" if speed else ""
            console.print(f"step {step}/{self._total}  {note}{left}")
            self._spoken = now


def score_table(rows: list[dict[str, Any]], title: str) -> Table:
    """PSNR and SSIM of the dark input and of the result, for each image and in the mean."""
    table = Table(title=title)
    table.add_column("image")
    for column in ("PSNR dark", "PSNR enhanced", "SSIM dark", "SSIM enhanced"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['psnr_dark']:.2f} dB",
            f"{row['psnr']:.2f} dB",
            f"{row['ssim_dark']:.3f}",
            f"{row['ssim']:.3f}",
            style="bold" if row["name"] == "mean" else None,
        )
    return table
