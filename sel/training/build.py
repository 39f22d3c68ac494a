"""From a configuration to the parts it names. A wrong value is reported with its key, before anything is compiled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.errors import FlaxError

from sel import models
from sel.data import Pair, training_dataset
from sel.diffusion import Schedule, make_schedule
from sel.entropy import sample_neighbor_weights
from sel.errors import UserError
from sel.objective import LossFn, make_loss
from sel.restoration import Restore, make_restore
from sel.training.config import Section, lookup
from sel.training.optimizer import make_learning_rate, make_optimizer
from sel.training.state import init_params

_MODELS = {"nafnet": models.ConditionalNAFNet, "unet": models.ConditionalUNet}
# float16 would need its losses scaled.
_PRECISIONS = ("float32", "bfloat16")

_COUNTS = ("num_steps", "batch_size", "log_every", "checkpoint.every", "checkpoint.keep", "ema.every")
_RANGES = {
    "seed": (0, math.inf),
    "validate_every": (0, math.inf),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.end_learning_rate": (0, math.inf),
    "optimizer.b1": (0, 1),
    "optimizer.b2": (0, 1),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.clip_norm": (0, math.inf),
    "ema.decay": (0, 1),
}


@dataclass(frozen=True)
class Parts:
    """What training needs of a configuration.

    Attributes:
      module: the network.
      schedule: the diffusion.
      loss_fn: compares a reverse step with the best one.
      neighbor_weights: distribution of the neighbour weights that the loss gets anew in each step, or None.
      learning_rate: from the number of updates to the learning rate.
      optimizer: uses it.
    """

    module: nn.Module
    schedule: Schedule
    loss_fn: LossFn
    neighbor_weights: str | None
    learning_rate: optax.Schedule
    optimizer: optax.GradientTransformation


def build_parts(config: Section) -> Parts:
    """Build every part and try it on abstract arrays.

    Raises:
      UserError: if a key is missing or its value is none that the part accepts.
    """
    check_numbers(config)
    module, schedule = build_model(config), build_schedule(config)
    rate = make_learning_rate(config["optimizer"], config["num_steps"])
    optimizer = make_optimizer(config["optimizer"], rate)
    return Parts(module, schedule, *build_loss(config), rate, optimizer)


def build_model(config: Section) -> nn.Module:
    """The network of `config.model`: its `name`, and the fields of the module, all of which it must know."""
    options = _options(config, "model")
    name = config["model"]["name"]
    _check_choice("model.name", options.pop("name"), tuple(_MODELS))
    _check_choice("model.dtype", config["model"]["dtype"], _PRECISIONS)
    unused = [f"config.model.{key}" for key in options if key not in _fields(_MODELS[name])]
    if unused:
        raise UserError(
            f"{', '.join(unused)}: the network {name} has no such key; its keys are {', '.join(_fields(_MODELS[name]))}"
        )
    options["dtype"] = getattr(jnp, options["dtype"])
    module = _call("model", _MODELS[name], **options)
    params = _call("model", jax.eval_shape, partial(init_params, module=module), jax.random.key(0))
    if min(leaf.size for leaf in jax.tree.leaves(params)) < 1:
        raise UserError(
            "config.model: a parameter would have no elements: widths and numbers of blocks are not negative"
        )
    return module


def model_section(module: nn.Module) -> Section:
    """The `config.model` that `build_model` builds this network from, as JSON gives it back."""
    name = next(name for name, network in _MODELS.items() if type(module) is network)
    options = {key: getattr(module, key) for key in _fields(type(module))}
    options["dtype"] = jnp.dtype(options["dtype"]).name
    return Section(
        name=name, **{key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    )


def _fields(network: type[nn.Module]) -> list[str]:
    """What a network is made from; Flax adds two fields of its own."""
    return [field.name for field in fields(network) if field.name not in ("parent", "name")]


def build_schedule(config: Section) -> Schedule:
    """The diffusion of `config.diffusion`."""
    return _call("diffusion", make_schedule, **_options(config, "diffusion"))


def build_loss(config: Section) -> tuple[LossFn, str | None]:
    """The loss of `config.loss`, and how its `neighbor_weights` are drawn in each step.

    A loss has a `name`; the spatial entropy has options, which other losses do not read.
    """
    options = _options(config, "loss")
    name = options.pop("name")
    if name != "spatial_entropy":
        options = {}
    drawn = options.pop("neighbor_weights", None)
    if drawn is not None:
        _call("loss.neighbor_weights", sample_neighbor_weights, jax.random.key(0), drawn)
    loss_fn = _call("loss", make_loss, name, **options)
    _call("loss", jax.eval_shape, loss_fn, _images(), _images())
    return loss_fn, drawn


def build_restore(config: Section) -> Restore:
    """What use needs of a configuration: the sampler of `config.sampler` around its network and diffusion."""
    module = build_model(config)
    restore = _call("sampler", make_restore, module, build_schedule(config), **_options(config, "sampler"))
    key = jax.random.key(0)
    params = jax.eval_shape(partial(init_params, module=module), key)
    _call("sampler", jax.eval_shape, restore, key, params, _images())
    return restore


def build_dataset(config: Section, pairs: Sequence[Pair]) -> Any:
    """The endless training batches of `config.data`, this process's part of them."""
    return _call(
        "data",
        training_dataset,
        pairs,
        batch_size=config["batch_size"],
        crop_size=config["data"]["crop_size"],
        resize_chance=config["data"]["resize_chance"],
        seed=config["seed"],
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def check_numbers(config: Section) -> None:
    """Refuse counts below 1 and rates out of range, which would cost a run before they are noticed.

    Raises:
      UserError: names the key, its value and the range.
    """
    for key in _COUNTS:
        value = lookup(config, key)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"config.{key} must be a whole number of at least 1, found {value!r}")
    for key, (low, high) in {**_RANGES, "optimizer.warmup_steps": (0, config["num_steps"])}.items():
        value = lookup(config, key)
        if not isinstance(value, (int, float)) or not low <= value < high:
            raise UserError(f"config.{key} must be at least {low} and below {high}, found {value!r}")


def _options(config: Section, section: str) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config[section].items()}


def _images() -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)


def _check_choice(key: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"config.{key} must be one of {', '.join(choices)}, found {value!r}")


def _call(section: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except (TypeError, ValueError, ArithmeticError, LookupError, FlaxError) as error:
        raise UserError(f"config.{section}: {str(error).strip().splitlines()[0]}") from error
