"""Digests of the files of a folder, in the form that `sha256sum --check SHA256SUMS` reads."""

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sel.errors import DamagedError
from sel.files import write_whole

SUMS = "SHA256SUMS"

_LINE = re.compile(rb"([0-9a-f]{64})  ([^\n]+)\n")


def write_digests(folder: Path) -> None:
    """Write the SHA-256 of every file below a folder to `SHA256SUMS` in it. Hidden files do not count.

    Raises:
      OSError: if a file can't be read.
      UserError: if the digests can't be written.
    """
    digests = _digests(folder, _files(folder))
    write_whole(folder / SUMS, b"".join(b"%s  %s\n" % (digests[name], os.fsencode(name)) for name in sorted(digests)))


def check_digests(folder: Path, names: Iterable[str] | None = None) -> bool:
    """Read files, and compare them with the digests in `SHA256SUMS`.

    Args:
      folder: what `write_digests` got.
      names: of files, relative to `folder`; all by default.

    Returns:
      Whether there are digests. Without them the files are read nevertheless: that they can be read is certain then.

    Raises:
      DamagedError: if a file was changed, or is missing, or was added.
      OSError: if one can't be read, which says nothing about what it holds.
    """
    found = _digests(folder, _files(folder) if names is None else names)
    try:
        listing = (folder / SUMS).read_bytes()
    except FileNotFoundError:
        return False
    lines = [_LINE.fullmatch(line) for line in listing.splitlines(keepends=True)]
    if not all(lines):
        raise DamagedError(f"{folder / SUMS} is damaged")
    stored = {os.fsdecode(line[2]): line[1] for line in lines if line}
    expected = stored.keys() if names is None else names
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != stored.get(name))
    if wrong:
        raise DamagedError(f"{folder / wrong[0]} is damaged: its SHA-256 is not the one in {SUMS}")
    return True


def _files(folder: Path) -> list[str]:
    """Files below a folder without the hidden ones, such as those that network disks add."""
    names = []
    for place, _, files in os.walk(folder, onerror=_raise):
        names += [str(Path(place, file).relative_to(folder)) for file in files if not file.startswith(".")]
    return [name for name in names if name != SUMS]


def _raise(error: OSError) -> None:
    raise error


def _digests(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter
        return {name: digest for name, digest in pool.map(lambda name: (name, _digest(folder / name)), names) if digest}


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().encode()
    except FileNotFoundError:
        return None
    except OSError as error:  # of a read, it lacks the name
        raise OSError(error.errno, error.strerror, str(path)) from None
