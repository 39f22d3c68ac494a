"""Images decoded once: 8-bit pixels in a folder of `.npy` files, mapped into memory instead of read.

A file's name is a hash of everything that its pixels depend on, so that a changed source gets another file, several
runs and processes share one folder, and the whole folder may be deleted at any time. The default is the user's cache
folder, not that of a run: a sweep decodes its images once. Each image has a file of its own, so that one changed
photograph costs one decoding; it takes one of the mappings of which Linux grants a process about 65,000. Behind the
pixels lies the SHA-256 of all before it, so that a damaged file is noticed, and made again.
"""

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import PIL
import tifffile

from sel.errors import UserError
from sel.images.reading import RGB, Progress
from sel.images.storage import ImageSource, OnProblem, fingerprint

MAX_BYTES = 50 * 2**30

# Decoders differ between versions, by a level here and there.
_VERSION = f"3, Pillow {PIL.__version__}, imagecodecs {imagecodecs.__version__}, tifffile {tifffile.__version__}"
_HEADER, _DIGEST = 128, 32
_ENTRY = re.compile(r"[0-9a-f]{64}\.npy|\.[0-9a-f]{32}\.building")
_ABANDONED = 24 * 3600


@dataclass(frozen=True)
class Recipe:
    """How to make an image again.

    Attributes:
      key: text that changes whenever `make` would return other pixels.
      size: returns (height, width) without making the image.
      make: returns the image.
    """

    key: str
    size: Callable[[], tuple[int, int]]
    make: Callable[[], RGB]


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/sel` or `~/.cache/sel`; where there is no home, the user's own among temporary files."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not home.startswith("~"):
        return Path(home) / "sel"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"sel-{user}"  # others have one there, too


def cached_images(
    recipes: Sequence[Recipe],
    folder: str | Path | None,
    *,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
    report: OnProblem | None = None,
) -> tuple[RGB | None, ...]:
    """Map images from a folder; those that it lacks are made first, on as many threads as there are cores.

    Files appear whole or not at all, so that any number of processes may do this at once. They stay usable when
    another process deletes them.

    Args:
      recipes: the images.
      folder: the cache, made if it is missing; None is `default_cache_dir()`.
      max_bytes: most that the folder may hold. To make room, images that are not asked for are deleted, the
        least recently used first. Processes that build at the same time may each use what is left, and together
        exceed it.
      progress: called on the calling thread as `progress(done, total)` for images that have to be made.
      report: called with each image's problem, in order. Without it the first is raised.

    Returns:
      The images in the order of `recipes`, read-only; None for those that were reported.

    Raises:
      UserError: if the images take more than `max_bytes` or than the disk has left, or the folder can't be read or
        written.
    """
    folder = default_cache_dir() if folder is None else Path(folder)
    # Names of files need not be Unicode.
    keys = [f"{_VERSION}, {recipe.key}".encode(errors="surrogateescape") for recipe in recipes]
    places = [folder / f"{hashlib.sha256(key).hexdigest()}.npy" for key in keys]
    with ThreadPoolExecutor() as pool:  # each is read, to compare its digest
        images = dict(zip(places, pool.map(_mapped, places), strict=True))
    missing = {place: recipe for place, recipe in zip(places, recipes, strict=True) if images[place] is None}
    if missing:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _make_room(folder, set(images), [recipe.size for recipe in missing.values()], max_bytes)
        made = _make_missing(missing, progress, strict=report is None)
        images.update({place: image for place, image in made.items() if not isinstance(image, UserError)})
        for problem in (made[place] for place in missing):
            if isinstance(problem, UserError):
                if report is None:
                    raise problem
                report(problem)
    return tuple(images[place] for place in places)


def known_state(source: ImageSource) -> str:
    """Return `fingerprint(source)`, or if there is no such file, which reading it will report, its name."""
    try:
        return fingerprint(source)
    except UserError:
        return f"missing {source}"


def _make_missing(missing: dict[Path, Recipe], progress: Progress | None, strict: bool) -> dict[Path, RGB | UserError]:
    """Make images, each on a thread."""

    def make(place: Path) -> RGB | UserError:
        image = _mapped(place)  # another process may have been here
        if image is not None:
            return image
        try:
            image = missing[place].make()
        except UserError as problem:
            if strict:
                raise
            return problem
        with _writing(place.parent):
            return _stored(place, image)

    places = list(missing)
    if not strict:  # where order does not matter, processes that build the same begin at different places
        begin = random.randrange(len(places))
        places = places[begin:] + places[:begin]
    made = {}
    # Warning filters belong to the process: they are changed once, around all threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        try:
            for place, image in zip(places, pool.map(make, places), strict=True):
                made[place] = image
                if progress is not None:
                    progress(len(made), len(places))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return made


def _mapped(place: Path) -> RGB | None:
    """Return the image of a file, None if there is none or it is damaged.

    Raises:
      UserError: if it can't be read, which is no damage.
    """
    try:
        content = place.read_bytes()
        if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
            return None
        image = np.lib.format.open_memmap(place, mode="r")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            return None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UserError(
            f"{place}: this decoded image can't be read: {error.strerror or error}; "
            "config.data.cache_dir names another place"
        ) from None
    with contextlib.suppress(OSError):  # a cache that may only be read is as good
        os.utime(place)
    # As a plain array: slices of a np.memmap cost several times as much.
    return np.asarray(image)


def _stored(place: Path, image: RGB) -> RGB:
    temporary = place.with_name(f".{uuid.uuid4().hex}.building")
    try:
        with io.BytesIO() as file:
            np.save(file, image)
            content = file.getvalue()
        temporary.write_bytes(content + hashlib.sha256(content).digest())
        os.replace(temporary, place)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    mapped = _mapped(place)
    return image if mapped is None else mapped  # None: another process has deleted it already


def _make_room(folder: Path, wanted: set[Path], sizes: list[Callable[[], tuple[int, int]]], max_bytes: int) -> None:
    """Delete what is not wanted, as far as the missing images need the room."""
    needed = sum(map(_file_size, sizes))
    held, others, abandoned = 0, [], []
    for entry in os.scandir(folder):
        if not _ENTRY.fullmatch(entry.name):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat()
            place = folder / entry.name
            building = place.suffix == ".building"
            if building and time.time() - status.st_mtime > _ABANDONED:
                abandoned.append(place)
            elif building or place in wanted:
                held += status.st_size
            else:
                others.append((status.st_mtime, status.st_size, place))
    if held + needed > max_bytes:
        raise UserError(
            f"{folder}: the decoded images take {_gib(held + needed)}, and the cache may hold {_gib(max_bytes)}: raise "
            "config.data.cache_gib, or use fewer or smaller images"
        )
    excess = held + needed + sum(size for _, size, _ in others) - max_bytes
    for _, size, place in sorted(others):
        if excess <= 0:
            break
        abandoned.append(place)
        excess -= size
    for place in abandoned:
        place.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the decoded images take {_gib(needed)}, and the disk has {_gib(free)} left; "
            "config.data.cache_dir names another place"
        )


def _file_size(size: Callable[[], tuple[int, int]]) -> int:
    try:
        height, width = size()
    except UserError:  # an unusable image takes no room, and is reported when it is made
        return 0
    return _HEADER + 3 * height * width + _DIGEST


def _gib(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"


@contextlib.contextmanager
def _writing(folder: Path):
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: the cache of decoded images cannot be written: {error.strerror or error}; "
            "config.data.cache_dir names another place"
        ) from None
