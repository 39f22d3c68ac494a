"""What a field of a configuration says of its key: default, range, meaning; and the check of its value."""

import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

Registry = Mapping[str, type]
Number = int | float

_MARK = "sel.choices"


@dataclass(frozen=True)
class Setting:
    """What is said of a field that is one key; see `setting`."""

    doc: str
    bounds: tuple[tuple[str, Number], ...]
    choices: Collection[Any]
    earlier: Any
    stored: bool
    rule: str


@dataclass(frozen=True)
class Choice:
    """What is said of a field whose value is an object of a class in a registry; see `choice`."""

    doc: str
    registry: Callable[[], Registry]
    default: str
    selector: str | None

    def places(self, at: str, name: str) -> tuple[str, str]:
        """The key that holds the name of the class, and what the keys of its fields begin with."""
        return (f"{at}{name}.{self.selector}", f"{at}{name}.") if self.selector else (f"{at}{name}", at)


@dataclass(frozen=True)
class Section:
    """What is said of a field whose value is an object of one class; see `section`."""

    doc: str
    kind: type
    stored: bool


def setting(
    default: Any,
    *,
    doc: str,
    at_least: Number | None = None,
    above: Number | None = None,
    at_most: Number | None = None,
    below: Number | None = None,
    choices: Collection[Any] = (),
    earlier: Any = MISSING,
    stored: bool = True,
    rule: str = "",
) -> Any:
    """A field that is one key.

    Args:
      default: its value where nobody sets it.
      doc: what it means, with its unit.
      at_least: the least value; of a tuple, of each of its elements.
      above: what it must be above.
      at_most: the greatest value.
      below: what it must be below.
      choices: the values that it may have; a mapping gives them names, by which dictionaries hold them.
      earlier: what runs did before there was this key, where that is not the default.
      stored: whether it is part of a run. A run may go on with another value of what is not.
      rule: what it may be, in words that follow "must be", where its type and the above do not say it.
    """
    limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    bounds = tuple((word, limit) for word, limit in limits.items() if limit is not None)
    return field(default=default, metadata={_MARK: Setting(doc, bounds, choices, earlier, stored, rule)})


def choice(registry: Registry | Callable[[], Registry], default: str, *, doc: str, selector: str | None = None) -> Any:
    """A field whose value is an object of one of several classes.

    Args:
      registry: the classes by name, or a function that returns them.
      default: the name of the class where nobody sets it.
      doc: what is chosen.
      selector: the key that holds the name, in a section called like the field, whose other keys are the fields of the
        class. Without it the name stands under the field's own name, and the fields of the class beside it.
    """
    registered = registry if callable(registry) else lambda: registry
    mark = Choice(doc, registered, default, selector)
    return field(default_factory=lambda: registered()[default](), metadata={_MARK: mark})


def section(kind: type, *, doc: str, stored: bool = True) -> Any:
    """A field whose value is an object of one class, whose fields are the keys of a section called like the field."""
    return field(default_factory=kind, metadata={_MARK: Section(doc, kind, stored)})


def check(instance: Any) -> None:
    """Check every setting of an object; for its `__post_init__`.

    Raises:
      ValueError: names the field, the rule and the value.
    """
    for name, annotation, mark in marked(type(instance)):
        value = getattr(instance, name)
        if isinstance(mark, Setting):
            choices = list(mark.choices.values()) if isinstance(mark.choices, Mapping) else mark.choices
            if not allows(annotation, mark, value, choices):
                raise ValueError(f"{name} must be {rule(annotation, mark)}, found {value!r}")
        elif isinstance(mark, Choice) and type(value) not in mark.registry().values():
            kinds = dict.fromkeys(f"{kind.__name__}(...)" for kind in mark.registry().values())
            raise ValueError(f"{name} must be one of {', '.join(kinds)}, found {value!r}")


def marked(kind: type) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and mark of each field that has one; another field is no key."""
    for entry in fields(kind):
        if _MARK in entry.metadata:
            yield entry.name, entry.type, entry.metadata[_MARK]


def default_of(kind: type, name: str) -> Any:
    """The default of a setting, as dictionaries hold it."""
    entry = next(entry for entry in fields(kind) if entry.name == name)
    choices = entry.metadata[_MARK].choices
    if isinstance(choices, Mapping):
        return next(key for key, value in choices.items() if value == entry.default)
    return entry.default


def allows(annotation: Any, mark: Setting, value: Any, choices: Collection[Any]) -> bool:
    """Whether a setting may have this value."""
    if choices:
        return any(value is choice or value == choice for choice in choices) or (
            value is None and _optional(annotation)
        )
    return any(_fits(part, mark.bounds, value) for part in _alternatives(annotation))


def rule(annotation: Any, mark: Setting) -> str:
    """What a setting may be, in words that follow "must be"."""
    if mark.rule:
        return mark.rule
    if mark.choices:
        return f"one of {', '.join(map(str, mark.choices))}{' or None' if _optional(annotation) else ''}"
    parts = _alternatives(annotation)
    return ", or ".join(_words(part, mark.bounds, alone=len(parts) == 1) for part in parts)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    united = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if united else (annotation,)


def _optional(annotation: Any) -> bool:
    return types.NoneType in _alternatives(annotation)


def _fits(part: Any, bounds: Sequence[tuple[str, Number]], value: Any) -> bool:
    origin = typing.get_origin(part)
    if part is types.NoneType:
        return value is None
    if len(_alternatives(part)) > 1:
        return any(_fits(one, bounds, value) for one in _alternatives(part))
    if origin is typing.Literal:
        return any(type(value) is type(known) and value == known for known in typing.get_args(part))
    if part in (bool, str):
        return isinstance(value, part)
    if part in (int, float):
        number = numbers.Integral if part is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool) and _within(bounds, value)
    if origin in (tuple, Sequence):
        kinds = [kind for kind in typing.get_args(part) if kind is not Ellipsis]
        if not isinstance(value, (tuple, list)) or (len(kinds) > 1 and len(value) != len(kinds)):
            return False
        return all(_fits(kinds[min(i, len(kinds) - 1)], bounds, x) for i, x in enumerate(value))
    return True  # a type of its own, which its class checks


def _within(bounds: Sequence[tuple[str, Number]], value: Any) -> bool:
    compare: dict[str, Callable[[Any, Any], bool]] = {
        "at least": lambda x, limit: x >= limit,
        "above": lambda x, limit: x > limit,
        "at most": lambda x, limit: x <= limit,
        "below": lambda x, limit: x < limit,
    }
    return math.isfinite(value) and all(compare[word](value, limit) for word, limit in bounds)


def _words(part: Any, bounds: Sequence[tuple[str, Number]], *, alone: bool = True) -> str:
    origin = typing.get_origin(part)
    limits = " and ".join(f"{word} {limit:g}" for word, limit in bounds)
    if part is types.NoneType:
        return "None"
    if origin is typing.Literal:
        return ", or ".join(map(repr, typing.get_args(part)))
    if part is int:
        return f"a whole number{' of ' * bool(limits)}{limits}"
    if part is float:
        if not any(word in ("at most", "below") for word, _ in bounds):
            limits = f"{limits} and finite" if limits else ""
        if not limits:
            return "a finite number"
        return limits if alone else f"a number {limits}"
    if origin in (tuple, Sequence):
        kinds = [kind for kind in typing.get_args(part) if kind is not Ellipsis]
        of = _words(kinds[0], bounds, alone=False)
        return f"{len(kinds)} values, each {of}" if len(kinds) > 1 else f"a list, each element {of}"
    return {bool: "True or False", str: "text"}.get(part, "a value of its own kind")
