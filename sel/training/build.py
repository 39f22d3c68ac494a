"""From a configuration to the parts it names. A wrong value is reported with its key."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from sel import entropy, models
from sel.diffusion import Schedule, make_schedule
from sel.errors import UserError
from sel.objective import LossFn, make_loss
from sel.restoration import Restore, make_restore

_MODELS = {"nafnet": models.ConditionalNAFNet}


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """The network of `config.model`: its `name`, and the fields of the module."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in config["model"].items()}
    name = options.pop("name")
    if name not in _MODELS:
        raise UserError(f"config.model.name must be one of {', '.join(_MODELS)}, found {name!r}")
    return _call("model", _MODELS[name], options)


def build_schedule(config: Mapping[str, Any]) -> Schedule:
    """The diffusion of `config.diffusion`."""
    return _call("diffusion", make_schedule, dict(config["diffusion"]))


def build_loss(config: Mapping[str, Any]) -> LossFn:
    """The loss of `config.loss`. The options of the spatial entropy stand beside `name` and are not read for another loss."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in config["loss"].items()}
    name = options.pop("name")
    return _call("loss", make_loss, {"name": name, **(options if name == "spatial_entropy" else {})})


def build_restore(config: Mapping[str, Any]) -> Restore:
    """The sampler of `config.sampler` around the configured network and diffusion."""
    sampler = {key: tuple(value) if isinstance(value, list) else value for key, value in config["sampler"].items()}
    return _call(
        "sampler", make_restore, {"module": build_model(config), "schedule": build_schedule(config), **sampler}
    )


def check_loss_options(config: Mapping[str, Any]) -> None:
    """Refuse options that the loss does not have, before anything is compiled."""
    known = {"name", *inspect.signature(entropy.spatial_entropy_loss).parameters} - {
        "predictions",
        "targets",
        "where",
        "return_map",
    }
    for key in config["loss"]:
        if key not in known:
            raise UserError(f"config.loss.{key} is no option of the loss; there are {', '.join(sorted(known))}")


def _call(section: str, function: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return function(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.{section}: {error}") from error
