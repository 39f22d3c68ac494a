"""Strict arrays for every test: no silent rank promotion; float64 only inside `with x64()`. One shell for programs."""

import jax
import pytest
from programs import TINY, Shell

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    """Runs the programs."""
    shell = Shell(tmp_path_factory.mktemp("shell"))
    yield shell
    shell.server.stdin.close()
    shell.server.wait(timeout=30)


@pytest.fixture(scope="session")
def trained(shell, tmp_path_factory):
    """A finished run: its folder, and what the program said."""
    workdir = tmp_path_factory.mktemp("runs") / "a run"
    return workdir, shell("train", *TINY, f"--workdir={workdir}")
