"""Optional dependencies: what an installation without extras lacks, and what to type to get it."""

import contextlib
import importlib.metadata
from collections.abc import Iterator

from sel.errors import UserError

# `sel` on the package index belongs to somebody else.
DISTRIBUTION = "sel-jax"


class MissingExtraError(UserError, ImportError):
    """A package is missing that one of the extras installs; the message says which."""


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Name the extra to install if an import in the block fails.

        with needs("torch"):
            import torch

    Args:
      extra: as in `[project.optional-dependencies]`.

    Raises:
      MissingExtraError: a package of others is missing, or fails to load.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, MissingExtraError) or (error.name or "").partition(".")[0] == "sel":
            raise
        missing = isinstance(error, ModuleNotFoundError)
        problem = f"{error.name} is not installed" if missing else f"{extra} can't be imported ({error})"
        raise MissingExtraError(f"{problem}: {install(extra)}", name=error.name) from error


def install(extra: str) -> str:
    """The command that installs an extra, quoted as a shell needs it."""
    try:
        importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # run from the checkout
        return f"pip install -e '.[{extra}]'"
    return f"pip install '{DISTRIBUTION}[{extra}]'"
