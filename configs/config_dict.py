"""The keys of `sel.training.Config` as an `ml_collections.ConfigDict`, which files change and flags override."""

import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from sel.choices import Key, flatten, keys
from sel.training import Config


def default_keys(**chosen: str) -> ConfigDict:
    """Every key that is read with these choices, with its default: `default_keys(model="unet")`."""
    config = ConfigDict({section: {"name": name} for section, name in chosen.items()})
    add_keys(config, keys(Config, flatten(config.to_dict())))
    return config


def add_keys(config: ConfigDict, found: Mapping[str, Key]) -> None:
    """Give a configuration the keys that it lacks, with their defaults."""
    present = flatten(config.to_dict())
    for key, about in found.items():
        if key not in present:
            *sections, name = key.split(".")
            place = config
            for section in sections:
                if section not in place:
                    place[section] = ConfigDict()
                place = place[section]
            place[name] = _typed(about)


def _typed(about: Key) -> Any:
    """The default such that it can be replaced by every value of the key's type."""
    united = typing.get_origin(about.annotation) in (typing.Union, types.UnionType)
    if not united and about.annotation is not Any:
        return about.default
    kinds = set(typing.get_args(about.annotation)) - {types.NoneType}
    return FieldReference(about.default, field_type=str if kinds == {str} else object)
