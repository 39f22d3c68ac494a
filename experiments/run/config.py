"""Configuration files, and changes to them: `--config=FILE` or `--config=FILE:VARIANT`, `--config.KEY=VALUE`.

Changes are parsed by `ml_collections.config_flags`; here a mistake becomes one line. Files are run here: the parser
keeps the functions of the file before. A key that is set, in the file or by a change, must be read by something.
"""

import json
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs.config_dict import add_keys
from configs.default import get_config as get_default
from sel.choices import flatten, keys, parse, refuse, unread
from sel.errors import UserError
from sel.training import Config

PREFIX = "--config."


def load_config(file: str, changes: Sequence[str]) -> Config:
    """Run `get_config()` of a file, or `get_config(VARIANT)`, and change values.

    Args:
      file: FILE or FILE:VARIANT.
      changes: arguments of the form `--config.KEY=VALUE`.

    Raises:
      UserError: if the file is missing or fails, a key that is set does not exist or has no effect, or a value is none
        that its key may have.
    """
    config = _run(file)
    written, inherited = (flatten(c.to_dict()) for c in (config, get_default()))
    reasons = {key: why for key, why in unread(Config, written).items() if written[key] != inherited.get(key, ...)}
    if reasons:
        raise UserError(f"--config={file}: {'; '.join(reasons.values())}")
    given = dict(change.removeprefix(PREFIX).partition("=")[::2] for change in changes if "=" in change)
    named = {key.partition("[")[0]: value for key, value in given.items()}
    chosen = {**written, **named}
    refuse({key: why for key, why in unread(Config, chosen).items() if key in named})
    before, after = keys(Config, written), keys(Config, chosen)
    for key, value in written.items():
        # A change that chooses another loss, ... brings the defaults of that.
        if key not in after or value == before[key].default:
            _drop(config, key)
    add_keys(config, after)
    return parse(Config, _changed(config, changes))


def _changed(config: ConfigDict, changes: Sequence[str]) -> dict[str, Any]:
    values, arguments = flags.FlagValues(), ["", *changes]  # of their own: a sweep loads one for each trial
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
        values(arguments)
    except flags.Error as error:
        # What the parser quotes from Python tells nothing to the person who wrote the flag.
        raise UserError(str(error).partition(": ValueError(")[0]) from error
    parsed: Any = values["config"]
    return json.loads(parsed.value.to_json())


def _drop(config: ConfigDict, key: str) -> None:
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    del config[name]


def _run(file: str) -> ConfigDict:
    path, _, variant = file.partition(":")
    if not Path(path).is_file():
        raise UserError(f"--config={file}: there is no file {path}")
    try:
        get_config = runpy.run_path(path).get("get_config")
        config = get_config(*[variant] if variant else []) if get_config else None
    except ValueError as error:  # a variant that there is not, in the words of the file
        raise UserError(f"--config={file}: {error}") from error
    except Exception as error:  # a configuration is a program, and raises what it likes
        raise UserError(f"--config={file}: {traceback.format_exception_only(error)[-1].strip()}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file}: it must define get_config(), which returns an ml_collections.ConfigDict")
    return config
