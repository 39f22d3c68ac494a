"""Configuration files, and changes to them: `--config=FILE` or `--config=FILE:VARIANT`, `--config.KEY=VALUE`.

The syntax is that of `ml_collections.config_flags`; here a mistake is answered in one line.
"""

import ast
import difflib
import functools
import operator
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from sel.errors import UserError
from sel.training import Section, from_json

PREFIX = "--config."


def load_config(file: str, changes: Sequence[str]) -> Section:
    """Run `get_config()` of a file, or `get_config(VARIANT)`, and change values.

    Args:
      file: FILE or FILE:VARIANT.
      changes: arguments of the form `--config.KEY=VALUE`.

    Raises:
      UserError: if the file is missing or fails, a key does not exist or a value has another type than the one before.
    """
    config = _run(file)
    for change in changes:
        key, equals, text = change.removeprefix(PREFIX).partition("=")
        if not equals:
            raise UserError(f"{change}: a value is missing; write {PREFIX}KEY=VALUE")
        _change(config, key, text)
    return from_json(config.to_json())


def _run(file: str) -> ConfigDict:
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--config={file}: there is no file {path}")
    try:
        get_config = runpy.run_path(path).get("get_config")
        config = get_config(*[variant] if variant else []) if get_config else None
    except Exception as error:  # a configuration is a program, and raises what it likes
        raise UserError(f"--config={file}: {traceback.format_exception_only(error)[-1].strip()}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file}: it must define get_config(), which returns an ml_collections.ConfigDict")
    return config


def _change(config: ConfigDict, key: str, text: str) -> None:
    before = flatten_dict(config.to_dict(), sep=".")
    if key not in before:
        inside = [PREFIX + name for name in before if name.startswith(f"{key}.")]
        close = [PREFIX + name for name in difflib.get_close_matches(key, before, 1)]
        hint = f"; it is a section of {', '.join(inside)}" if inside else "".join(f"; is it {name}?" for name in close)
        raise UserError(f"{PREFIX}{key}: there is no such key{hint}")
    *sections, name = key.split(".")
    section = functools.reduce(operator.getitem, sections, config)
    kind = section.get_type(name)
    value = text if kind is str else _literal(text)
    try:
        if kind is not object and (value is None or isinstance(value, bool) is not (kind is bool)):
            raise TypeError
        section[name] = value
    except TypeError:
        raise UserError(
            f"{PREFIX}{key}={text}: the value must be of type {kind.__name__}, like {before[key]!r}"
        ) from None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (SyntaxError, ValueError):
        return text
