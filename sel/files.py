"""Writing files whole or not at all: a temporary file beside the target takes its name when it is complete."""

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from sel.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, or leave what was there before.

    Args:
      path: the file to write or replace; its folder exists.
      content: what it is to hold.

    Raises:
      UserError: if the file can't be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; what is no Unicode, as names of files may be, is written as escapes.

    Raises:
      UserError: if the file can't be written.
    """
    write_whole(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON. It knows neither NaN nor infinity, such as the PSNR of identical images: they become null.

    Raises:
      UserError: if the file can't be written.
    """
    value = json.loads(json.dumps(value), parse_constant=lambda _: None)
    write_text(path, json.dumps(value, indent=2) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
      UserError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: this folder can't be made: {error.strerror}") from None
