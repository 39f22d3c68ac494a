"""The rule that a flag that somebody gives has an effect, or is an error."""

from collections.abc import Iterable

from absl import flags

from sel.errors import UserError


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
