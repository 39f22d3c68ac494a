"""From a configuration to the parts it names. A wrong value is reported with its key, before anything is compiled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.errors import FlaxError

from sel.data import Pair, training_dataset
from sel.diffusion import SAMPLERS, Schedule, make_sampler, make_schedule
from sel.entropy import sample_neighbor_weights
from sel.errors import UserError
from sel.objective import Objective, make_loss
from sel.restoration import TiledRestore
from sel.training.config import Section, lookup
from sel.training.keys import MODELS, check_keys, keys_read, module_keys
from sel.training.optimizer import UpdateAverage, make_average, make_learning_rate, make_optimizer
from sel.training.state import abstract_params

# float16 would need its losses scaled.
_PRECISIONS = ("float32", "bfloat16")

_COUNTS = (
    *("num_steps", "batch_size", "log_every", "max_skipped"),
    *("ema.every", "checkpoint.every", "checkpoint.keep", "compute.accumulate"),
)
_RANGES = {
    "seed": (0, math.inf),
    "validate_every": (0, math.inf),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.end_learning_rate": (0, math.inf),
    "optimizer.b1": (0, 1),
    "optimizer.b2": (0, 1),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.clip_norm": (0, math.inf),
    "optimizer.gamma": (0, math.inf),
    "objective.snr_cap": (0, math.inf),
    "loss.entropy": (0, math.inf),
    "loss.l1": (0, math.inf),
    "loss.blurred_l1": (0, math.inf),
    "ema.decay": (0, 1),
    "checkpoint.keep_best": (0, math.inf),
    "compute.remat": (0, 2),
    "compute.parameter_shards": (0, math.inf),
}


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


def build_parts(config: Section) -> Parts:
    """Build every part and try it on abstract arrays.

    Raises:
      UserError: if a key is missing or read by nothing, or its value is none that the part accepts.
    """
    check_keys(config)
    check_numbers(config)
    module, objective = build_model(config), build_objective(config)
    rate = _call("optimizer", make_learning_rate, config["optimizer"], config["num_steps"])
    optimizer = _call("optimizer", make_optimizer, config["optimizer"], rate)
    return Parts(module, objective, rate, optimizer, _call("ema", make_average, config["ema"]))


def build_model(config: Section) -> nn.Module:
    """The network of `config.model`: its `name`, and the fields of the module."""
    options = _options(config, "model")
    name = config["model"]["name"]
    _check_choice("model.name", options.pop("name"), tuple(MODELS))
    _check_choice("model.dtype", config["model"]["dtype"], _PRECISIONS)
    check_keys(config, sections=["model"])
    options["dtype"] = getattr(jnp, options["dtype"])
    module = _call("model", MODELS[name], **options)
    params = _call("model", abstract_params, module)
    if min(leaf.size for leaf in jax.tree.leaves(params)) < 1:
        raise UserError(
            "config.model: a parameter would have no elements: widths and numbers of blocks are not negative"
        )
    return module


def model_section(module: nn.Module) -> Section:
    """The `config.model` that `build_model` builds this network from, as JSON gives it back."""
    name = next(name for name, network in MODELS.items() if type(module) is network)
    options = {key: getattr(module, key) for key in module_keys(type(module))}
    options["dtype"] = jnp.dtype(options["dtype"]).name
    return Section(
        name=name, **{key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    )


def build_schedule(config: Section) -> Schedule:
    """The diffusion of `config.diffusion`."""
    return _call("diffusion", make_schedule, **_options(config, "diffusion"))


def build_objective(config: Section) -> Objective:
    """The diffusion of `config.diffusion`, compared as `config.objective` says by the loss of `config.loss`."""
    options = _options(config, "loss")
    name = options.pop("name")
    drawn = options.pop("neighbor_weights", None)
    if drawn is not None:
        _call("loss.neighbor_weights", sample_neighbor_weights, jax.random.key(0), drawn)
    if name == "mixture" and not any(config["loss"][weight] for weight in ("entropy", "l1", "blurred_l1")):
        raise UserError("config.loss: a mixture needs a weight above 0: entropy, l1 or blurred_l1")
    loss_fn = _call("loss", make_loss, name, **options)
    _call("loss", jax.eval_shape, loss_fn, _images(), _images())
    compared = _options(config, "objective")
    return _call("objective", Objective, build_schedule(config), loss_fn, neighbor_weights=drawn, **compared)


def sampler_steps(config: Section) -> int:
    """Steps of the sampler: `config.sampler.num_steps`, at most those of the diffusion.

    Where that is 0, or missing, the `few_steps` of the sampler, or all.

    Raises:
      UserError: there is no such sampler, or it is not a whole number of at least 0.
    """
    most, sampler = config["diffusion"]["num_steps"], config["sampler"]
    _check_choice("sampler.method", sampler["method"], tuple(SAMPLERS))
    few = SAMPLERS[sampler["method"]].few_steps or most
    steps = sampler.get("num_steps", 0)
    if not isinstance(steps, int) or steps < 0:
        raise UserError(
            f"config.sampler.num_steps must be a whole number of at least 0 (0: the default, here {min(few, most)}), "
            f"found {steps!r}"
        )
    return min(steps or few, most)


def build_restore(config: Section, **options: Any) -> TiledRestore:
    """What use needs of a configuration: the sampler of `config.sampler` around its network and diffusion.

    `options` are those of `TiledRestore`: `tile`, `overlap`.
    """
    module, schedule, num_steps = build_model(config), build_schedule(config), sampler_steps(config)
    sampler = {name: value for name, value in _options(config, "sampler").items() if name != "num_steps"}
    sampler = _call("sampler", make_sampler, sampler.pop("method"), **sampler)
    restore = _call("sampler", TiledRestore, module, schedule, sampler=sampler, num_steps=num_steps, **options)
    _call("sampler", jax.eval_shape, restore.whole, jax.random.key(0), abstract_params(module), _images())
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
        section, _, name = key.rpartition(".")
        if name not in keys_read(config, section):
            continue
        value = lookup(config, key)
        if not isinstance(value, (int, float)) or not low <= value < high:
            raise UserError(f"config.{key} must be at least {low} and below {high}, found {value!r}")


def _options(config: Section, section: str) -> dict[str, Any]:
    return {key: _tuples(value) for key, value in config[section].items()}


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, so that what is made from them can be hashed."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


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
