"""The keys that a class of settings, choices and sections has, and which of those that somebody gave nothing reads."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sel.choices.fields import Choice, Registry, Section, Setting, default_of, marked, rule
from sel.errors import UserError


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
      doc: what it means.
      rule: what it may be, in words that follow "must be".
      default: as dictionaries hold it.
      annotation: type of its values.
    """

    doc: str
    rule: str
    default: Any
    annotation: Any


def keys(kind: type, given: Mapping[str, Any], *, at: str = "", where: str = "config") -> dict[str, Key]:
    """Every key that is read with these choices, like `optimizer.b1`.

    Args:
      kind: the class.
      given: values by such keys, of which only the names of classes matter.
      at: what the keys begin with.
      where: what keys begin with in messages.

    Raises:
      UserError: if there is no class of a name.
    """
    found: dict[str, Key] = {}
    for name, annotation, mark in marked(kind):
        if isinstance(mark, Section):
            found |= keys(mark.kind, given, at=f"{at}{name}.", where=where)
        elif isinstance(mark, Choice):
            selector, inner = mark.places(at, name)
            found[selector] = _selector(mark)
            found |= keys(chosen(mark, selector, given, where), given, at=inner, where=where) | {
                selector: _selector(mark)
            }
        else:
            found[f"{at}{name}"] = _key(kind, name, annotation, mark)
    return found


def readers(kind: type, *, at: str = "") -> Iterator[tuple[str, Key, tuple[tuple[str, str], ...]]]:
    """Every key that there is, with the choices (key, name) that read it: none for a key that is always read."""
    for name, annotation, mark in marked(kind):
        if isinstance(mark, Section):
            yield from readers(mark.kind, at=f"{at}{name}.")
        elif isinstance(mark, Choice):
            selector, inner = mark.places(at, name)
            yield selector, _selector(mark), ()
            for one, its_kind in mark.registry().items():
                for key, about, choices in readers(its_kind, at=inner):
                    if key != selector:
                        yield key, about, ((selector, one), *choices)
        else:
            yield f"{at}{name}", _key(kind, name, annotation, mark), ()


def unread(kind: type, given: Mapping[str, Any], *, where: str = "config") -> dict[str, str]:
    """Each of the given keys that nothing reads, and why."""
    known = keys(kind, given, where=where)
    return {key: _reason(kind, key, given, known, where) for key in given if key not in known}


def refuse(reasons: Mapping[str, str]) -> None:
    """Raise if there is a reason.

    Raises:
      UserError: with all of them.
    """
    if reasons:
        raise UserError("; ".join(reasons.values()))


def flatten(values: Mapping[str, Any], *, at: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys like `optimizer.b1`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, at=f"{at}{name}.") if isinstance(value, Mapping) else {f"{at}{name}": value}
    return flat


def chosen(mark: Choice, selector: str, given: Mapping[str, Any], where: str) -> type:
    """The class whose name is given.

    Raises:
      UserError: if there is none.
    """
    name, registry = given.get(selector, mark.default), mark.registry()
    if not isinstance(name, str) or name not in registry:
        raise UserError(f"{where}.{selector} must be one of {', '.join(registry)}, found {name!r}")
    return registry[name]


def name_of(registry: Registry, value: Any, *, selector: str | None = None) -> str:
    """The name of an object's class; where a class has many names, the object holds it in the field `selector`."""
    if selector and any(name == selector for name, _, _ in marked(type(value))):
        return getattr(value, selector)
    return next(name for name, kind in registry.items() if kind is type(value))


def _key(kind: type, name: str, annotation: Any, mark: Setting) -> Key:
    values = str if isinstance(mark.choices, Mapping) else annotation  # a name in place of the value
    return Key(mark.doc, rule(annotation, mark), default_of(kind, name), values)


def _selector(mark: Choice) -> Key:
    return Key(mark.doc, f"one of {', '.join(mark.registry())}", mark.default, str)


def _reason(kind: type, key: str, given: Mapping[str, Any], known: Mapping[str, Key], where: str) -> str:
    if any(name.startswith(f"{key}.") for name in known):
        return f"{where}.{key} is a section with keys of its own, found {given[key]!r}"
    names: dict[str, dict[str, None]] = {}
    for other, _, choices in readers(kind):
        for selector, name in choices if other == key else ():
            names.setdefault(selector, {})[name] = None
    now = {selector: given.get(selector, known[selector].default) for selector in names if selector in known}
    rules = [
        f"{where}.{selector} {' or '.join(names[selector])}, not by {name}"
        for selector, name in now.items()
        if name not in names[selector]
    ]
    if rules:
        return f"{where}.{key} has no effect: it is read by {' and by '.join(rules)}"
    return f"{where}.{key}: there is no such key; {_hint(key, known)}"


def _hint(key: str, known: Collection[str]) -> str:
    """The key that was meant, or those of the innermost section that exists."""
    at, parts = "", key.split(".")
    while len(parts) > 1 and any(name.startswith(f"{at}{parts[0]}.") for name in known):
        at += f"{parts.pop(0)}."
    beside = sorted({name[len(at) :].split(".")[0] for name in known if name.startswith(at)})
    close = difflib.get_close_matches(parts[0], beside, 1, 0.5)
    return f"did you mean {at}{close[0]}?" if close else f"there are {', '.join(beside)}"
