"""The command line as people type it: dashes or underscores, `~`, `--help`, and flags that nothing would read."""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence

from absl import flags

from sel.errors import UserError

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class _PathParser(flags.ArgumentParser[str]):
    syntactic_help = "a path on this machine; ~ is your home"

    def parse(self, argument: str) -> str:
        if _REMOTE.match(argument):
            raise ValueError("remote addresses can't be read or written; give a folder that is mounted here")
        return os.path.expanduser(argument)


def define_path(name: str, default: str, purpose: str) -> flags.FlagHolder[str]:
    """Define a flag for a file or a folder: `~` is expanded, and a remote address is refused."""
    parser, serializer = _PathParser(), flags.ArgumentSerializer[str]()
    return flags.DEFINE(parser, name, default, purpose, serializer=serializer, module_name=_caller())


def refuse_unused(names: Iterable[str], *, unless: bool, reason: str) -> None:
    """Refuse flags that were given although nothing reads them.

    Args:
      names: of the flags.
      unless: whether they are read.
      reason: why they are not, in words that follow "has no effect".

    Raises:
      UserError: names those that were given.
    """
    given = [f"--{name}" for name in names if flags.FLAGS[name].present]
    if given and not unless:
        raise UserError(f"{' and '.join(given)} {'has' if len(given) == 1 else 'have'} no effect {reason}")


def normalized(arguments: Sequence[str], prefix: str | None = None) -> list[str]:
    """Arguments with underscores in the names of flags; in values of keys below `prefix`, `~` is expanded."""
    result: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            return [*result, *arguments[place:]]
        name, equals, value = argument.partition("=")
        if prefix and argument.startswith(prefix):
            value = os.path.expanduser(value) if value.startswith("~") else value
        elif re.match(r"--?[A-Za-z]", name):
            dashes = len(name) - len(name.lstrip("-"))
            name = name[:dashes] + name[dashes:].replace("-", "_")
        result.append(name + equals + value)
    return result


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask what there is."""
    return not {"-h", "-help", "--help", "--helpshort", "--helpfull"}.isdisjoint(arguments)


def help_text(main: Callable[..., None]) -> str:
    """What a program does, and its flags: those of its own module and of others of this project."""
    modules = flags.FLAGS.flags_by_module_dict()
    ours = [name for name in modules if name == sys.argv[0] or name.startswith(("sel.", "experiments."))]
    # The program's own come first.
    own = {main.__module__, sys.argv[0]}
    lines = []
    for name in sorted(ours, key=lambda name: (name not in own, name)):
        for flag in modules[name]:
            known = str(flag.default_as_str).strip("'")
            default = "" if flag.default in (None, "", False) else f" (default: {known})"
            lines.append(f"  --{'[no]' if flag.boolean else ''}{flag.name}")
            lines += textwrap.wrap(f"{flag.help}{default}", 100, initial_indent=6 * " ", subsequent_indent=6 * " ")
    purpose = (sys.modules[main.__module__].__doc__ or "").strip()
    purpose = re.sub(r"(?m)^( +)sel (\w+)", lambda match: match[1] + command(match[2]), purpose)
    return f"{purpose}\n\nflags:\n\n" + "\n".join(lines)


def command(name: str) -> str:
    """How to start another program of the command `sel`: in the way that this one was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or not spec.name.startswith("experiments."):
        return f"sel {name}"
    return f"python -m experiments.{'convert_torch' if name == 'convert' else name}"


def _caller() -> str:
    frame = sys._getframe(1)
    # Not simply the one above: tests put checks of types between.
    while frame.f_back:
        name: str = frame.f_globals["__name__"]
        if name != __name__ and name.startswith(("__main__", "experiments.", "benchmarks.", "sel.cli.")):
            break
        frame = frame.f_back
    module: str = frame.f_globals["__name__"]
    return sys.argv[0] if module == "__main__" else module
