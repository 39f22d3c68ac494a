"""Every key of the configuration as a page, made of the fields that define them: docs/configuration.md."""

from collections.abc import Iterable
from typing import Any

from configs.default import get_config as get_default
from sel.choices import Key, flatten, readers
from sel.training import Config

_HEAD = """# Keys of the configuration

Set one in a configuration file (`config.loss.num_bins = 16`) or on the command line (`--config.loss.num_bins=16`). Some
keys, such as `loss.name`, choose which others are read; setting a key that is not read is an error. Defaults are
those of `configs/default.py`. `python -m experiments.summary --keys` writes this page, from the fields of
`sel.training.Config`.
"""

_COLUMNS = ("key", "default", "may be", "meaning", "read with")


def reference() -> str:
    """The page, in Markdown."""
    defaults, lines = flatten(get_default().to_dict()), [_HEAD]
    section: str | None = None
    for key, about, conditions in sorted(_merged(), key=lambda row: "." in row[0]):
        if key.rpartition(".")[0].partition(".")[0] != section:
            section = key.rpartition(".")[0].partition(".")[0]
            lines += [f"\n## {section or 'The run'}\n", _row(_COLUMNS), _row("---" for _ in _COLUMNS)]
        default = defaults.get(key, about.default) if _is_default(conditions, defaults) else about.default
        read_with = "; ".join(f"`{selector}` {_names(selector, names)}" for selector, names in conditions.items())
        lines.append(_row((f"`{key}`", f"`{_text(default)}`", about.rule, about.doc, read_with)))
    return "\n".join(lines) + "\n"


def _merged() -> list[tuple[str, Key, dict[str, list[str]]]]:
    """Each key with the names, by the key of the choice, with which it is read and means the same."""
    rows: dict[tuple[str, str, Any], tuple[str, Key, dict[str, list[str]]]] = {}
    for key, about, choices in readers(Config):
        _, _, conditions = rows.setdefault((key, about.doc, about.default), (key, about, {}))
        for selector, name in choices:
            names = conditions.setdefault(selector, [])
            if name not in names:
                names.append(name)
    every = {selector: _all_names(selector) for _, _, conditions in rows.values() for selector in conditions}
    return [
        (key, about, {selector: names for selector, names in conditions.items() if names != every[selector]})
        for key, about, conditions in rows.values()
    ]


def _all_names(selector: str) -> list[str]:
    rule = next(about.rule for key, about, _ in readers(Config) if key == selector)
    return rule.removeprefix("one of ").split(", ")


def _names(selector: str, names: list[str]) -> str:
    others = [name for name in _all_names(selector) if name not in names]
    return f"not {', '.join(others)}" if len(others) < len(names) else ", ".join(names)


def _is_default(conditions: dict[str, list[str]], defaults: dict[str, Any]) -> bool:
    return all(defaults.get(selector) in names for selector, names in conditions.items())


def _text(value: Any) -> str:
    return '""' if value == "" else str(value)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |".replace("|  |", "| |")
