"""Strict arrays for every test: no silent rank promotion; float64 only inside `with x64()`. One shell for programs."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from programs import TINY, Shell
from tiny_runs import run

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


@pytest.fixture(scope="module")
def compile_little(tmp_path_factory):
    """Every run builds its step anew; the same step is compiled once, and fast rather than well."""
    options = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def whole(compile_little, tmp_path_factory):
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    state, losses = run(workdir)
    return workdir, state, losses
