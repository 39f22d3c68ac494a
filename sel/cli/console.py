"""What the programs share in talking to a person: one line for a mistake, and output that breaks nothing."""

import io
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging
from jax._src import xla_bridge
from rich.console import Console

from sel.cli.arguments import help_text, normalized, wants_help
from sel.cli.compile_cache import keep_compiled
from sel.errors import UserError


class _Console(Console):
    """Goes on without speaking if nobody listens any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes at the end


# Names of files are shown as they are, whatever brackets and colons they contain.
console = _Console(soft_wrap=True, markup=False, highlight=False, emoji=False)


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
        if wants_help(arguments[1:]):
            print(help_text(main))
            sys.exit(0)
        arguments = [arguments[0], *normalized(arguments[1:], prefix)]
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
        except (RuntimeError, AssertionError) as error:  # the latter if nothing for such devices is installed
            if traceback.extract_tb(error.__traceback__)[-1].filename != xla_bridge.__file__:
                raise
            reason = f": {error}" if str(error) else ""
            fail(f"JAX finds no device for JAX_PLATFORMS={jax.config.values['jax_platforms']}{reason}")
        except KeyboardInterrupt as interrupt:
            fail(str(interrupt) or "interrupted", status=130)

    # A character that the output can't show is written as an escape.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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


def print_problems(problems: Sequence[UserError]) -> None:
    """Count and list what was left out because it can't be used."""
    if not problems:
        return
    console.print(f"Left out, {len(problems)} in all:")
    for problem in problems:
        console.print(f"  {' '.join(str(problem).split())}")
