"""A file that one process holds at a time, and that the system takes from a process that dies."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What disks answer that offer no locks, some network disks among them.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class HeldError(Exception):
    """Another process holds the lock; the message says which."""


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = False) -> Iterator[int | None]:
    """Hold a lock for the time of a block.

    On Linux, NFS passes such locks on to the server, and so to other machines.

    Args:
      path: the file, which is made and stays; its folder exists.
      wait: until the other process lets go of it.

    Yields:
      The descriptor: a child that inherits it holds the lock, too. None where the disk offers no locks.

    Raises:
      HeldError: if another process holds it; not with `wait`.
      OSError: if the file can't be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor if _lock(descriptor, wait) else None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if isinstance(error, BlockingIOError) or error.errno == errno.EACCES:  # the latter from NFS
            raise HeldError(os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown") from None
        if error.errno in _UNSUPPORTED:
            return False
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(errors="replace"), 0)
    return True
