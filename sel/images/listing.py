"""The images of a folder, in the order that people expect."""

import re
from pathlib import Path

from sel.errors import UserError
from sel.images.formats import SUFFIXES


def list_images(folder: str | Path) -> tuple[Path, ...]:
    """List the image files of a folder (not of its subfolders), numbers in names in numerical order (2 before 10).

    Args:
      folder: a folder.

    Returns:
      Paths with one of `SUFFIXES`, upper or lower case; hidden files are passed over.

    Raises:
      UserError: if the folder is missing, no folder, unreadable, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from None
    # A broken link is listed: reading it says what is wrong, and where.
    images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.is_dir()]
    if not images:
        found = f"{len(entries)} other entries" if entries else "nothing"
        raise UserError(f"{folder}: holds no image ({', '.join(SUFFIXES)}), found {found}")
    return tuple(sorted(images, key=lambda path: natural_order(path.name)))


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Key that sorts names with numbers in numerical order, 2 before 10."""
    parts = re.split("([0-9]+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name
