"""Configuration files, and changes to them: `--config=FILE` or `--config=FILE:VARIANT`, `--config.KEY=VALUE`.

Changes are parsed by `ml_collections.config_flags`; here a mistake becomes one line. Files are run here: the parser
keeps the functions of the file before. A key that is set, in the file or by a change, must be read by something.
"""

import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs.default import get_config as get_default
from sel.errors import UserError
from sel.training import Section, from_json, unread, without_unread

PREFIX = "--config."


def load_config(file: str, changes: Sequence[str]) -> Section:
    """Run `get_config()` of a file, or `get_config(VARIANT)`, and change values.

    Args:
      file: FILE or FILE:VARIANT.
      changes: arguments of the form `--config.KEY=VALUE`.

    Raises:
      UserError: if the file is missing or fails, a key does not exist or is set in vain, or a value has another type
        than the one before.
    """
    config, arguments = _run(file), ["", *changes]
    _check_file(file, config)
    values = flags.FlagValues()  # of their own: a sweep loads one configuration for each trial
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments)
    except flags.Error as error:
        # What the parser quotes from Python tells nothing to the person who wrote the flag.
        raise UserError(str(error).partition(": ValueError(")[0]) from error
    except (AttributeError, KeyError, ValueError) as error:
        reason: Any = error
        while isinstance(reason, Exception):
            reason = reason.args[0]
        raise UserError(f"{file} has no such key: {reason}") from error
    parsed: Any = values["config"]
    return without_unread(from_json(parsed.value.to_json()), parsed.override_values)


def _check_file(file: str, config: ConfigDict) -> None:
    """Refuse keys that nothing reads and that the file does not merely take over from configs/default.py."""
    values, defaults = (from_json(c.to_json()) for c in (config, get_default()))
    set_in_vain = [reason for key, reason in unread(values).items() if _value(values, key) != _value(defaults, key)]
    if set_in_vain:
        raise UserError(f"--config={file}: {'; '.join(set_in_vain)}")


def _value(config: Section, key: str) -> Any:
    section, _, name = key.rpartition(".")
    return (config.get(section, {}) if section else config).get(name, ...)


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
