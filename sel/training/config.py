"""A configuration as training sees it: dictionaries and lists, as JSON gives them back, of the keys of `configs/`."""

import json
from typing import Any

from sel.errors import UserError


class Section(dict[str, Any]):
    """A dictionary that tells the user which key it lacks: people write configurations, and code asks more of them."""

    def __missing__(self, key: str) -> Any:
        raise UserError(f"the configuration has no key {key!r} where one is needed; configs/default.py shows its place")


def from_json(text: str) -> Section:
    """The configuration that `ConfigDict.to_json` or a checkpoint wrote."""
    return json.loads(text, object_hook=Section)


def lookup(config: Section, key: str) -> Any:
    """The value at a key like `optimizer.b1`."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def differences(stored: Any, given: Any, *, section: str = "config") -> list[str]:
    """One sentence for each key whose value is not the same in both, in the order of the keys."""
    if not (isinstance(stored, dict) and isinstance(given, dict)):
        return [] if stored == given else [f"{section} was {stored!r} and is {given!r}"]
    names = sorted({*stored, *given})
    return [
        line for name in names for line in differences(stored.get(name), given.get(name), section=f"{section}.{name}")
    ]
