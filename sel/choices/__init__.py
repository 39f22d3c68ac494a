"""Configurations as frozen dataclasses: each field holds the default, the range and the meaning of one key.

    @dataclass(frozen=True)
    class Cosine:
        end_learning_rate: float = setting(1e-6, at_least=0, doc="Learning rate after the last step.")

        def __post_init__(self) -> None:
            check(self)

    SCHEDULES = {"cosine": Cosine, "constant": Constant}

    @dataclass(frozen=True)
    class AdamW:
        schedule: Cosine | Constant = choice(SCHEDULES, "cosine", doc="Course of the learning rate.")

`parse` builds such an object from nested dictionaries, in which a choice is the name of a class and the fields of that
class are further keys of the same section; `to_dict` is the way back. A class is found by its name in a dictionary, so
that an entry from outside is as good as one from here.
"""

from sel.choices.fields import check, choice, section, setting
from sel.choices.keys import Key, flatten, keys, name_of, readers, refuse, unread
from sel.choices.parsing import differences, parse, to_dict

__all__ = [
    "Key",
    "check",
    "choice",
    "differences",
    "flatten",
    "keys",
    "name_of",
    "parse",
    "readers",
    "refuse",
    "section",
    "setting",
    "to_dict",
    "unread",
]
