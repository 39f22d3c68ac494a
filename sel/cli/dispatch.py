"""Starts the programs of the command `sel`, with large pages of memory where they help."""

import importlib
import sys

from sel.cli.large_pages import use_large_pages
from sel.extras import MissingExtraError, needs

# Module and purpose.
PROGRAMS = {
    "enhance": ("sel.cli.enhance", "brighten photographs"),
    "evaluate": ("sel.cli.evaluate", "score a model on a set of images"),
    "app": ("sel.cli.app", "serve a page that brightens photographs"),
    "export": ("sel.cli.export", "write model and sampler as one StableHLO file"),
    "convert": ("sel.cli.convert", "turn published PyTorch weights into a checkpoint"),
}
# Those that compute for long; decided before JAX is imported.
_COMPUTE = ("enhance", "evaluate", "app")


def main() -> None:
    """Run the program that the first argument names: the command `sel`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in PROGRAMS:
        if name in _COMPUTE:
            use_large_pages()
        del sys.argv[1]
        run_program(name)
    elif name in ("-h", "--help", "help"):
        print("usage: sel PROGRAM --FLAG=VALUE ...\n")
        print("\n".join(f"  sel {program:<10} {purpose}" for program, (_, purpose) in PROGRAMS.items()))
        print("\nsel PROGRAM --help lists its flags.")
    else:
        _fail(f"there is no program {name!r}; choose one of {', '.join(PROGRAMS)}, or see sel --help")


def run_program(name: str) -> None:
    """Run one of `PROGRAMS`, on the arguments in `sys.argv`."""
    if name in _COMPUTE:
        use_large_pages()
    try:
        with needs("use"):
            program = importlib.import_module(PROGRAMS[name][0])
    except MissingExtraError as error:
        _fail(str(error))
    program.start()


def _fail(message: str) -> None:
    """As `sel.cli.console.fail`, which needs what may be missing here."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
