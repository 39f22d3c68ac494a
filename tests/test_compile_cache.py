"""Compiled programs on disk: found again, bounded, out of the way of what people chose, and never a reason to stop."""

import os

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from sel.cli.compile_cache import keep_compiled

NAMES = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's cache folder, and JAX as it starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = {name: jax.config.values[name] for name in NAMES}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compiled_anew():
    """Compile a program as if this process had just started; whether that was necessary."""
    hits = []
    jax.clear_caches()
    compilation_cache.reset_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    listener = lambda event, **_: hits.append(event)  # noqa: E731
    jax.monitoring.register_event_listener(listener)
    try:
        jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 4))).block_until_ready()
    finally:
        jax.monitoring.unregister_event_listener(listener)
    return "/jax/compilation_cache/cache_misses" in hits


def test_what_was_compiled_once_is_found_again(home, recwarn):
    keep_compiled()
    (folder,) = (home / "sel").iterdir()
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)
    assert compiled_anew()
    assert not compiled_anew()
    for path in folder.glob("*-cache"):  # a crash, or a full disk
        path.write_bytes(path.read_bytes()[:50])
    compiled_anew()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(("name", "value"), [(NAMES[0], "/chosen"), (NAMES[1], False)])
def test_what_a_person_chose_stays(home, name, value):
    jax.config.update(name, value)
    keep_compiled()
    assert jax.config.values[name] == value
    assert jax.config.values[NAMES[0]] in ("/chosen", None)
    assert list(home.iterdir()) == []


def test_a_folder_that_cannot_be_made_means_no_cache(home):
    (home / "sel").write_text("in the way")
    keep_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_the_folder_is_bounded_by_dropping_what_was_not_used_for_long(home):
    keep_compiled()
    (folder,) = (home / "sel").iterdir()
    (folder / "autotuned").mkdir()
    for age, name in enumerate(("new", "autotuned/middle", "old")):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    for max_bytes, left in ((300, {"new", "middle", "old"}), (299, {"new", "middle"}), (150, {"new"}), (0, set())):
        jax.config.update("jax_compilation_cache_dir", None)
        keep_compiled(max_bytes)
        assert {path.name for path in folder.rglob("*") if path.is_file()} == left


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_nothing_is_kept_where_others_could_put_programs(home, mode):
    """Below a folder that all may write to, without and with the bit that keeps them from what is another's."""
    (home / "sel").mkdir()
    (home / "sel").chmod(mode)
    keep_compiled()
    assert (jax.config.values["jax_compilation_cache_dir"] is not None) == bool(mode & 0o1000)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
@pytest.mark.parametrize("whose", ["sel", "leaf"])
def test_nothing_is_kept_in_folders_of_another_user(home, whose):
    keep_compiled()
    (leaf,) = (home / "sel").iterdir()
    assert leaf.stat().st_mode & 0o077 == 0
    jax.config.update("jax_compilation_cache_dir", None)
    os.chown(leaf if whose == "leaf" else home / "sel", 65534, 65534)
    keep_compiled()
    assert jax.config.values["jax_compilation_cache_dir"] is None
