"""Starts a program of the command `sel`, with large pages of memory where they help."""

import importlib

from sel.cli.large_pages import use_large_pages

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


def run_program(name: str, started_as: str = "sel.cli") -> None:
    """Run a program.

    Args:
      name: one of `PROGRAMS`.
      started_as: the module that runs as `__main__`.
    """
    if name in _COMPUTE:
        use_large_pages(started_as)
    importlib.import_module(PROGRAMS[name][0]).start()
