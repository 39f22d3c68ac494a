"""The training and validation pairs that a configuration names."""

from collections.abc import Sequence

from experiments.run.config import PREFIX
from sel.cli.console import console, print_problems
from sel.cli.progress import Progress
from sel.data import Pair, Pairs, large_enough, near_duplicates
from sel.data.choices import Sides
from sel.errors import UserError
from sel.scoring.scores import scorable
from sel.training import Config


def load_data(config: Config) -> Sides:
    """Training and validation pairs of `config.data`. What is left out, or on both sides, is printed.

    Raises:
      UserError: if they are not there, or not as they should be.
    """
    data, problems = config.data, list[UserError]()
    report = None if data.strict else problems.append
    try:
        training, validation = data.load(seed=config.seed, report=report, bars=Progress)
        if isinstance(data, Pairs) and data.fraction is None:
            _warn_of_shared_scenes(training, validation)
        enough = large_enough(training, crop_size=data.crop_size, resize_chance=data.resize_chance, report=report)
        return enough, scorable(validation, report)
    finally:
        print_problems(problems)


def _warn_of_shared_scenes(training: Sequence[Pair], validation: Sequence[Pair]) -> None:
    alike = near_duplicates([pair.x0 for pair in validation], [pair.x0 for pair in training])
    rows = zip(validation, alike, strict=True)
    shared = {pair.name: training[int(row.argmax())].name for pair, row in rows if row.any()}
    if shared:
        names = ", ".join(f"{name} ({other})" for name, other in list(shared.items())[:20])
        more = f" and {len(shared) - 20} more" if len(shared) > 20 else ""
        console.print(
            f"Warning: {len(shared)} of {len(validation)} validation images look like a training image: {names}{more}. "
            "Where both show one scene, the score is flattered; similar things before the same wall look alike, too. "
            f"{PREFIX}data.validation=0.1 holds out what looks alike as a whole."
        )
