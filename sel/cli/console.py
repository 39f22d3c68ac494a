"""What the programs share in talking to a person: one line for a mistake, a progress bar, a table of scores."""

import collections
import datetime
import logging
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

from absl import app, flags
from absl import logging as absl_logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, track

from sel.cli.compile_cache import keep_compiled
from sel.errors import UserError

# Names of files are shown as they are, whatever brackets and colons they contain.
console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)

T = TypeVar("T")


def require(*names: str) -> None:
    """Demand that flags are given, and not empty."""
    for name in names:
        flags.register_validator(name, bool, message=f"--{name} is required; --help explains it")


def run(main: Callable[..., None], prefix: str | None = None, file: str | None = None) -> None:
    """Parse the command line and run `main`. A mistake of the user ends it with one line on stderr and status 1.

    Args:
      main: takes nothing, or a list: the arguments that begin with `prefix`, or the one that is `file`.
      prefix: begins arguments that are no flags.
      file: what the one argument is that must be given and is no flag.
    """

    def parse(arguments: Sequence[str]) -> list[str]:
        prefixed = [argument for argument in arguments if prefix and argument.startswith(prefix)]
        try:
            program, *rest = flags.FLAGS([argument for argument in arguments if argument not in prefixed])
        except flags.Error as error:
            fail("; ".join(line.strip() for line in str(error).splitlines()))
        if file and not rest:
            fail(f"{file} is required; --help explains it")
        if rest[1 if file else 0 :]:
            fail(f"unexpected argument {rest[-1]!r}; options are written --NAME=VALUE, and --help lists them")
        return [program, *rest, *prefixed]

    def guarded(arguments: Sequence[str]) -> None:
        # Orbax reports every checkpoint in a dozen lines, and a damaged one twice before it raises.
        absl_logging.set_verbosity(absl_logging.FATAL)
        logging.getLogger("jax").setLevel("WARNING")
        warnings.filterwarnings("ignore", module="orbax")
        # Readers of a damaged checkpoint go on after the first of them has failed, each to a traceback of its own.
        sys.unraisablehook = lambda _: None
        keep_compiled()
        try:
            main(*[arguments[1:]] if prefix or file else [])
        except UserError as error:
            try:
                fail(str(error))
            finally:
                _leave_at_once()
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or "interrupted", status=130)

    app.run(guarded, flags_parser=parse)


def _leave_at_once() -> None:
    """End the process with status 1, if threads are left that Python would wait for, without waiting.

    Orbax's, of a checkpoint that could not be written, wait 20 minutes for each other.
    """
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def fail(message: str, status: int = 1) -> NoReturn:
    """End the program with one line on stderr."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


class StepProgress:
    """Loss, speed and time left: beside a bar on a terminal, as a line now and then where there is none."""

    def __init__(self, total: int):
        self._total = total
        self._losses: collections.deque[float] = collections.deque(maxlen=20)
        self._first: tuple[int, float] | None = None
        self._spoken = time.monotonic()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("compiling", total=total)

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
        if math.isfinite(metrics["loss"]):
            self._losses.append(metrics["loss"])
        # The first step is not timed: it waits for the compiler.
        first, since = self._first = self._first or (step, now)
        note = f"loss {sum(self._losses) / max(len(self._losses), 1):.4f}"
        if step > first:
            speed = (step - first) / max(now - since, 1e-6)
            left = datetime.timedelta(seconds=round((self._total - step) / speed))
            note += f"  {speed:.2f} steps/s  {left} left"
        self._bar.update(self._task, completed=step, description=note)
        if not console.is_terminal and (now - self._spoken > 15 or step == self._total):
            console.print(f"step {step}/{self._total}  {note}")
            self._spoken = now


def with_progress(items: Sequence[T], description: str) -> Iterator[T]:
    """Iterate with a bar on a terminal."""
    yield from track(items, description, console=console, disable=not console.is_terminal)


def print_problems(problems: Sequence[UserError]) -> None:
    """Count and list what was left out because it can't be used."""
    if not problems:
        return
    console.print(f"Left out, {len(problems)} in all:")
    for problem in problems:
        console.print(f"  {' '.join(str(problem).split())}")
