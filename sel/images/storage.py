"""Where encoded images lie: files of a folder, members of a zip archive, records of a prepared set.

The three are read alike, by `read_bytes`. An archive is read in place and nothing of it is unpacked, so that no name in
it can reach a file outside.
"""

import functools
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sel.errors import UserError
from sel.extras import needs
from sel.images.formats import SUFFIXES
from sel.images.limits import MAX_MEMBER_BYTES

# Who is told of a file that is left out; without one, the first such file stops everything.
OnProblem = Callable[[UserError], object]


@dataclass(frozen=True)
class ZipMember:
    """One file of a zip archive."""

    archive: Path
    member: str

    def __str__(self) -> str:
        return f"{self.archive}:{self.member}"


@dataclass(frozen=True)
class Record:
    """One image of a set that `experiments.prepare_data` has written: `side` is `low` or `high` of record `index`."""

    folder: Path
    split: str
    index: int
    name: str
    side: str

    def __str__(self) -> str:
        return f"{self.folder}:{self.split}/{self.side}/{self.name}"


ImageSource = Path | ZipMember | Record


def read_bytes(source: ImageSource) -> bytes:
    """Read an encoded image as it is stored.

    Args:
      source: a file, a member of an archive or a record of a prepared set.

    Returns:
      What the file holds.

    Raises:
      UserError: if it is missing, empty, encrypted, damaged or can't be read.
    """
    try:
        content = _read(source)
    except (UserError, MemoryError):
        raise
    except OSError as error:
        reason = error.strerror or f"cannot be read ({error})"
        raise UserError(f"{source}: {reason[0].lower()}{reason[1:]}") from None
    except Exception as error:  # damaged archives raise BadZipFile, zlib.error, EOFError, NotImplementedError...
        raise UserError(f"{source}: damaged ({type(error).__name__}: {error})") from None
    if not content:
        raise UserError(f"{source}: the file is empty (0 bytes)")
    return content


def fingerprint(source: ImageSource) -> str:
    """Name a source and the state of the file behind it, without reading it: another state, another fingerprint.

    Args:
      source: a file, a member of an archive or a record of a prepared set.

    Returns:
      Absolute place, size and times of the last changes: copying may keep all but the last of these.

    Raises:
      UserError: if the file is missing.
    """
    if isinstance(source, Record):
        path, place = source.folder / "dataset_info.json", f"{source.split}/{source.side}/{source.index}/{source.name}"
    elif isinstance(source, ZipMember):
        path, place = source.archive, source.member
    else:
        path, place = source, ""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}") from None
    return f"{path.absolute()}:{place}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"


def image_tree(
    root: str | Path, *, report: OnProblem | None = None, passed_over: Callable[[Path], object] | None = None
) -> dict[PurePosixPath, ImageSource]:
    """Find all images below a folder or in a zip archive.

    Hidden files and what macOS adds to archives (`__MACOSX`) are passed over. Links to folders are followed, except to
    one that holds the link. A folder without images stands for the archives in it.

    Args:
      root: a folder, or a `.zip` file.
      report: told of each entry that is left out; without it the first raises.
      passed_over: called with each file of a folder whose name is none of an image, hidden ones excepted.

    Returns:
      Sources by their path below the root. Each path begins with the name of the root, so that a part of a set, such
      as `Real_captured`, is recognised by its name.

    Raises:
      UserError: if the root is missing or is neither folder nor archive; without `report` also for a loop of links and
        for an entry of an archive that leads outside, is a link, is encrypted, claims to be huge or occurs twice.
    """
    root = Path(root)
    if root.is_dir():
        images = _folder_tree(root, report, passed_over or (lambda _: None))
        for archive in sorted(root.glob("*.zip")) if not images else []:
            images |= {PurePosixPath(root.resolve().name) / path: x for path, x in _zip_tree(archive, report).items()}
        return images
    if root.is_file():
        return _zip_tree(root, report)
    raise UserError(f"{root}: {'neither a folder nor a file' if root.exists() else 'no such folder or file'}")


def refuse(report: OnProblem | None, message: str) -> None:
    """Tell `report` of something left out, or raise it."""
    if report is None:
        raise UserError(message)
    report(UserError(message))


def is_image_name(path: PurePosixPath) -> bool:
    """Whether a path ends like an image and no part of it is hidden or an addition of macOS."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _folder_tree(
    root: Path, report: OnProblem | None, passed_over: Callable[[Path], object]
) -> dict[PurePosixPath, ImageSource]:
    images: dict[PurePosixPath, ImageSource] = {}
    linked: set[str] = set()

    def walk(folder: Path, place: PurePosixPath, above: tuple[str, ...]) -> None:
        try:
            real = os.path.realpath(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            refuse(report, f"{folder}: cannot be listed: {error.strerror}")
            return
        for entry in entries:
            path = Path(entry.path)
            if path.is_dir() and not entry.name.startswith("."):
                target = os.path.realpath(path)
                if entry.is_symlink() and (target in above or target == real):
                    refuse(report, f"{path}: a link to a folder that holds it")
                elif entry.is_symlink() and target in linked:
                    refuse(report, f"{path}: a second link to {target}")
                else:
                    # Once for each folder: folders that link to one another have as many paths as there are orders.
                    linked.update([target] if entry.is_symlink() else [])
                    walk(path, place / entry.name, (*above, real))
            # A broken link is listed: reading it says what is wrong, and where.
            elif is_image_name(PurePosixPath(entry.name)) and not path.is_dir():
                images[place / entry.name] = path
            elif not entry.name.startswith(".") and not path.is_dir():
                passed_over(path)

    walk(root, PurePosixPath(root.resolve().name), tuple(map(str, root.resolve().parents)))
    return images


def _zip_tree(archive: Path, report: OnProblem | None) -> dict[PurePosixPath, ImageSource]:
    try:
        members = _open_zip(archive, archive.stat().st_mtime_ns, os.getpid()).infolist()
    except OSError as error:
        raise UserError(f"{archive}: {error.strerror or error}") from None
    except MemoryError:
        raise
    except Exception:  # BadZipFile, and what a damaged table of contents makes of struct, codecs...
        raise UserError(f"{archive}: no zip archive, or a damaged one; other archives must be unpacked first") from None
    images: dict[PurePosixPath, ImageSource] = {}
    count = Counter(info.filename for info in members)
    for info in members:
        # Some programs write the separator of Windows.
        source, path = ZipMember(archive, info.filename), PurePosixPath(info.filename.replace("\\", "/"))
        # Reading in place makes none of these dangerous; but what holds them isn't what it claims to be.
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", info.filename):
            refuse(report, f"{source}: its name leads outside the archive")
        elif stat.S_ISLNK(info.external_attr >> 16):
            refuse(report, f"{source}: a link, which is not followed")
        elif info.is_dir() or not is_image_name(path):
            continue
        elif info.flag_bits & 1:
            refuse(report, f"{source}: encrypted")
        elif info.file_size > MAX_MEMBER_BYTES:
            refuse(report, _too_large(source, info))
        elif count[info.filename] > 1:
            refuse(report, f"{source}: the archive holds this name twice")
        else:
            images[archive.stem / path] = source
    return images


def _too_large(source: ZipMember, info: zipfile.ZipInfo) -> str:
    limit = MAX_MEMBER_BYTES / 2**20
    return f"{source}: too large, {info.file_size / 2**20:.0f} MiB; of a member of an archive {limit:g} are read"


def _read(source: ImageSource) -> bytes:
    if isinstance(source, ZipMember):
        archive = _open_zip(source.archive, source.archive.stat().st_mtime_ns, os.getpid())
        info = archive.getinfo(source.member)
        if info.file_size > MAX_MEMBER_BYTES:
            raise UserError(_too_large(source, info))
        return archive.read(source.member)
    if isinstance(source, Record):
        return _read_record(source)
    return source.read_bytes()


def _read_record(record: Record) -> bytes:
    state = (record.folder / "dataset_info.json").stat().st_mtime_ns
    example = _open_records(record.folder, record.split, state, os.getpid())[record.index]
    if example["id"].decode() != record.name:
        raise UserError(f"{record}: not where it was when the set was opened; it has been prepared anew")
    return example[record.side]


# Open files are kept. Processes don't share them: a fork would share the place where it reads, too.
@functools.lru_cache(maxsize=8)
def _open_zip(archive: Path, state: int, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)


@functools.lru_cache(maxsize=8)
def _open_records(folder: Path, split: str, state: int, process: int) -> Any:
    with needs("train"):
        import tensorflow_datasets as tfds

    skip = {side: tfds.decode.SkipDecoding() for side in ("low", "high")}
    return tfds.builder_from_directory(folder).as_data_source(split, decoders=skip)
