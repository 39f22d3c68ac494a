"""Strict arrays for every test: no silent rank promotion; float64 only inside `with x64()`. One shell for programs."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from programs import TINY, Shell
from tiny_runs import run

jax.config.update("jax_numpy_rank_promotion", "raise")

# Files that take longest: begun first, so that no worker waits for another at the end.
LONG = ("training_scale", "fine_tuning", "experiments", "training_faults", "data_programs", "evaluate", "entropy_api")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in {f"test_{name}" for name in LONG})


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """What one worker, or a program that it starts, has compiled is compiled for all of them."""
    base = tmp_path_factory.getbasetemp()
    options = {
        "jax_compilation_cache_dir": str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in options.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    # A file that another process has just begun to write costs time, nothing else.
    os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def shell(compile_once, tmp_path_factory):
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


@pytest.fixture(scope="module")
def compile_little():
    """Programs are compiled fast rather than well."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def whole(compile_little, tmp_path_factory):
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    state, losses = run(workdir)
    return workdir, state, losses
