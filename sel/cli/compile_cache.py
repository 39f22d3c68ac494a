"""Compiled programs are kept on disk: what was compiled once, for the same shapes, starts at once the next time."""

import hashlib
import os
import platform
import stat
import warnings
from pathlib import Path

import jax

from sel.data.cache import default_cache_dir

MAX_BYTES = 2 * 2**30


def keep_compiled(max_bytes: int = MAX_BYTES) -> None:
    """Let JAX keep compiled programs in the user's cache folder; `JAX_ENABLE_COMPILATION_CACHE=false` forbids it.

    A folder that somebody chose, with `JAX_COMPILATION_CACHE_DIR`, is left to them. A cache that can't be read or
    written costs time, nothing else, and so is no reason to speak.

    Each kind of processor has a folder of its own: programs for CPUs use what the processor offers, JAX's names of
    files do not tell, and homes are shared by machines of different age.

    What the folder holds is run. Nothing is kept where another user could write: without a home, or below a folder of
    somebody else.

    Args:
      max_bytes: most that the folder may hold when a program starts; the least recently used go first.
        (JAX's own bound needs locks, which network disks lack, and stops to store anything after a crash in between.)
    """
    if jax.config.values["jax_compilation_cache_dir"] or not jax.config.values["jax_enable_compilation_cache"]:
        return
    folder = default_cache_dir() / f"compiled-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_own(folder):
            return
        folder.chmod(0o700)
        _make_room(folder, max_bytes)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def _processor() -> str:
    """A short name for what the processor can do."""
    text = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        pass
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_own(folder: Path) -> bool:
    """Whether a folder is the user's own, and only the user and root can put another one in its place."""
    if not hasattr(os, "getuid"):
        return True
    folder = folder.resolve()
    if folder.stat().st_uid != os.getuid():
        return False
    for above in folder.parents:
        status = above.stat()
        open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.getuid()) or open_to_all:
            return False
    return True


def _make_room(folder: Path, max_bytes: int) -> None:
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    excess = sum(status.st_size for _, status in files) - max_bytes
    for path, status in sorted(files, key=lambda file: max(file[1].st_atime, file[1].st_mtime)):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= status.st_size
