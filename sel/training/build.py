"""From a configuration to the parts that training and use are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax
from flax import linen as nn

from sel.data import Pair, training_dataset
from sel.errors import UserError
from sel.objective import Objective
from sel.restoration import TiledRestore
from sel.training.config import Config, ModelConfig
from sel.training.optimizer import UpdateAverage


@dataclass(frozen=True)
class Parts:
    """What training needs of a configuration.

    Attributes:
      module: the network.
      objective: what training minimizes.
      learning_rate: from the number of updates to the learning rate.
      optimizer: uses it.
      update_average: from the average, the new parameters and the number of updates to the new average.
    """

    module: nn.Module
    objective: Objective
    learning_rate: optax.Schedule
    optimizer: optax.GradientTransformation
    update_average: UpdateAverage


def build_parts(config: Config) -> Parts:
    """Build every part.

    Raises:
      UserError: if the learning rate does not fit the number of steps.
    """
    try:
        rate = config.optimizer.rate(config.num_steps)
    except ValueError as error:
        raise UserError(f"config.optimizer.{error}") from error
    objective = Objective(schedule=config.diffusion.schedule(), loss_fn=config.loss, **vars(config.objective))
    optimizer = config.optimizer.transformation(rate)
    return Parts(config.model, objective, rate, optimizer, config.ema.update)


def sampler_steps(config: ModelConfig) -> int:
    """Steps of the sampler: `config.sampler.num_steps`; where that is 0, as many as are enough."""
    most = config.diffusion.num_steps
    return config.sampler.num_steps or min(config.sampler.method.few_steps or most, most)


def build_restore(config: ModelConfig, **options: Any) -> TiledRestore:
    """What use needs of a configuration: its sampler around its network and diffusion.

    `options` are those of `TiledRestore`: `tile`, `overlap`.

    Raises:
      UserError: if one of these has no such value.
    """
    schedule, sampler, num_steps = config.diffusion.schedule(), config.sampler.method, sampler_steps(config)
    try:
        return TiledRestore(config.model, schedule, sampler=sampler, num_steps=num_steps, **options)
    except ValueError as error:
        raise UserError(str(error)) from error


def build_dataset(config: Config, pairs: Sequence[Pair]) -> Any:
    """The endless training batches, this process's part of them."""
    return training_dataset(
        pairs,
        batch_size=config.batch_size,
        crop_size=config.data.crop_size,
        resize_chance=config.data.resize_chance,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
