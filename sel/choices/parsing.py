"""From nested dictionaries, as JSON and configuration files hold them, to objects, and back."""

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sel.choices.fields import MISSING, Choice, Section, allows, marked, rule
from sel.choices.keys import chosen, flatten, name_of, readers, refuse, unread
from sel.errors import UserError

T = TypeVar("T")


def parse(kind: type[T], values: Mapping[str, Any], *, where: str = "config", stored: bool = False) -> T:
    """Build an object from nested dictionaries. Lists become tuples, and what is missing has its default.

    Args:
      kind: its class.
      values: as `to_dict` or JSON gives them.
      where: what keys begin with in messages.
      stored: whether an earlier version may have written the values: what is missing then has the value that runs had
        before there was the key, and a key that only other choices read is passed over.

    Raises:
      UserError: names the key, the rule and the value; or the key that nothing reads.
    """
    given = flatten(values)
    known = {key for key, _, _ in readers(kind)} if stored else set()
    refuse({key: reason for key, reason in unread(kind, given, where=where).items() if key not in known})
    return _build(kind, given, "", where, stored)


def to_dict(instance: Any, *, stored: bool = False) -> dict[str, Any]:
    """The nested dictionaries from which `parse` builds this object, with lists for tuples, as JSON gives them back.

    Args:
      instance: of a class made of settings, choices and sections.
      stored: whether to leave out what is no part of a run.
    """
    result: dict[str, Any] = {}
    for name, _, mark in marked(type(instance)):
        value = getattr(instance, name)
        if isinstance(mark, Choice):
            inner = {mark.selector or name: name_of(mark.registry(), value, selector=mark.selector)} | to_dict(
                value, stored=stored
            )
            result |= {name: inner} if mark.selector else inner
        elif stored and not mark.stored:
            continue
        elif isinstance(mark, Section):
            result[name] = to_dict(value, stored=stored)
        elif isinstance(mark.choices, Mapping):
            result[name] = next(key for key, known in mark.choices.items() if known == value)
        else:
            result[name] = _lists(value)
    return result


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str = "config") -> list[str]:
    """One sentence for each key whose value is not the same in two dictionaries, in the order of the keys."""
    old, new = flatten(before), flatten(now)
    different = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{where}.{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in different]


def _build(kind: type[T], given: Mapping[str, Any], at: str, where: str, stored: bool) -> T:
    arguments: dict[str, Any] = {}
    for name, annotation, mark in marked(kind):
        key = f"{at}{name}"
        if isinstance(mark, Section):
            arguments[name] = _build(mark.kind, given, f"{key}.", where, stored)
        elif isinstance(mark, Choice):
            selector, inner = mark.places(at, name)
            arguments[name] = _build(chosen(mark, selector, given, where), given, inner, where, stored)
        elif key in given:
            value = _tuples(given[key])
            if not allows(annotation, mark, value, mark.choices):
                raise UserError(f"{where}.{key} must be {rule(annotation, mark)}, found {given[key]!r}")
            arguments[name] = mark.choices[value] if isinstance(mark.choices, Mapping) else _floats(annotation, value)
        elif stored and mark.earlier is not MISSING:
            arguments[name] = mark.earlier
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        message = str(error).strip().splitlines()[0]
        names_a_field = message.split(maxsplit=1)[0].split(".")[0] in {name for name, _, _ in marked(kind)}
        raise UserError(
            f"{where}.{at}{message}" if names_a_field else f"{f'{where}.{at}'.rstrip('.')}: {message}"
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _floats(annotation: Any, value: Any) -> Any:
    """Whole numbers as floats where that is their type: JSON and people write 1 for 1.0."""
    if annotation is float:
        return float(value)
    if typing.get_origin(annotation) is tuple and set(typing.get_args(annotation)) <= {float, Ellipsis}:
        return tuple(map(float, value))
    return value


def _lists(value: Any) -> Any:
    return list(map(_lists, value)) if isinstance(value, (list, tuple)) else value
