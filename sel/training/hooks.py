"""What a caller of `train` does on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

# One line of `metrics.jsonl`.
Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Functions that `train` calls: by default none does anything. Only the first process's scores and lines count.

    Attributes:
      on_train_begin: called with the compiled step, before the first one is taken.
      on_step_begin: called before each step with its number and a function that awaits all steps before it.
      on_step_end: called after each step with its number and metrics: `loss`, `gradient_norm`, `update_norm`. Several
        steps are under way at once: it is called up to eight steps later.
      on_validation: called every `config.validate_every` steps with the number of the step and the averaged parameters;
        returns their scores by name. The best checkpoints are ranked by `validation_psnr`.
      on_log: called with each line of `metrics.jsonl`.
      on_message: called with what a person should know, for example that a damaged checkpoint was passed over.
      should_stop: called after each step with its number. If it returns True, the state is saved and training stops.
        All processes must return the same for the same step.
    """

    on_train_begin: Callable[[jax.stages.Compiled], object] = lambda compiled: None
    on_step_begin: Callable[[int, Callable[[], None]], object] = lambda step, wait: None
    on_step_end: Callable[[int, dict[str, float]], object] = lambda step, metrics: None
    on_validation: Callable[[int, Any], dict[str, float]] = lambda step, average: {}
    on_log: Callable[[Line], object] = lambda line: None
    on_message: Callable[[str], object] = lambda text: None
    should_stop: Callable[[int], bool] = lambda step: False
