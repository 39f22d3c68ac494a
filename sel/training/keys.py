"""What reads each key of a configuration, so that no key is set in vain.

The rule: **a key that somebody sets is read, or it is an error.** In the configuration that training gets, every key
must be read by what is chosen there; `configs/default.py` offers the keys of every choice, and `without_unread` drops
those that the chosen ones don't read, unless they were set.
"""

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import fields
from typing import Any

from flax import linen as nn

from sel import models
from sel.data import DATASETS
from sel.diffusion import SAMPLERS, make_schedule
from sel.entropy import spatial_entropy_loss
from sel.errors import UserError
from sel.training.config import Section

MODELS = {"nafnet": models.ConditionalNAFNet, "unet": models.ConditionalUNet}


def module_keys(network: type[nn.Module]) -> tuple[str, ...]:
    """What a network is made from: Flax adds two fields of its own, and `remat` is a matter of `config.compute`."""
    return tuple(field.name for field in fields(network) if field.name not in ("parent", "name", "remat"))


def _options(function: Callable[..., Any], *others: str) -> tuple[str, ...]:
    """Names of what a function takes by name or has a default for, but for the others."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.default is not p.empty and p.name not in others)


_ENTROPY = _options(spatial_entropy_loss, "where", "return_map")
_STORED = ("root", "train", "validation", "cache_dir", "cache_gib")

# Keys that are read whatever is chosen, by section; "" is the top.
ALWAYS: dict[str, tuple[str, ...]] = {
    "": ("seed", "num_steps", "batch_size", "log_every", "validate_every", "max_skipped", "init_from"),
    "model": ("name",),
    "diffusion": _options(make_schedule),
    "loss": ("name",),
    "objective": ("compare", "t_sampling", "t_weighting"),
    "optimizer": ("name", "schedule", "learning_rate", "warmup_steps", "b1", "b2", "clip_norm"),
    "ema": ("decay", "every", "warmup"),
    "data": ("name", "crop_size", "resize_chance", "strict"),
    "sampler": ("method", "num_steps"),
    "checkpoint": ("every", "keep", "keep_best"),
    "compute": ("cpu_devices", "accumulate", "remat", "parameter_shards"),
}

# And those that only some values of another key read.
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "model.name": {name: module_keys(network) for name, network in MODELS.items()},
    "loss.name": {
        "spatial_entropy": _ENTROPY,
        "l1": (),
        "l2": (),
        "mixture": (*_ENTROPY, "entropy", "l1", "blurred_l1", "blur_sigma"),
    },
    "objective.compare": {"x_prev": (), "x0": ("clip_x0",)},
    "objective.t_weighting": {"none": (), "noise": (), "min_snr": ("snr_cap",)},
    "optimizer.name": {"adamw": ("weight_decay",), "adam": (), "lion": ("weight_decay",)},
    "optimizer.schedule": {"cosine": ("end_learning_rate",), "multistep": ("milestones", "gamma"), "constant": ()},
    "data.name": {
        **dict.fromkeys(("pairs", *DATASETS), _STORED),
        "photographs": (*_STORED, "longest_side", "darkenings", "camera"),
        "samples": ("darkenings", "validation_size"),
    },
}


def choices() -> dict[str, dict[str, tuple[str, ...]]]:
    """`CHOICES`, and the options of the samplers that there are now."""
    samplers = {name: tuple(field.name for field in fields(sampler)) for name, sampler in SAMPLERS.items()}
    return CHOICES | {"sampler.method": samplers}


# Values that runs had before there were these keys.
EARLIER: dict[str, dict[str, Any]] = {
    "": {"max_skipped": 10},
    "objective": {"compare": "x_prev", "t_sampling": "uniform", "t_weighting": "none"},
    "optimizer": {"name": "adamw", "schedule": "cosine"},
    "ema": {"warmup": "ratio"},
    "sampler": {"num_steps": 0},
    "checkpoint": {"keep_best": 0},
}


def keys_read(config: Section, section: str) -> set[str]:
    """Names of the keys of a section that are read as the configuration is."""
    chosen = (values.get(value, ()) for _, values, value in _choices(config, section))
    return {*ALWAYS[section], *(name for names in chosen for name in names)}


def unread(config: Section, *, sections: Iterable[str] = ALWAYS) -> dict[str, str]:
    """Every key that nothing reads, like `loss.num_bins`, and why.

    A section whose choice is none that there is says nothing: that is an error of its own.
    """
    found = {}
    for section in sections:
        values = config if section == "" else config.get(section, {})
        if not isinstance(values, dict):
            raise UserError(f"config.{section} is a section with keys of its own, found {values!r}")
        if any(value not in choices for _, choices, value in _choices(config, section)):
            continue
        for name in values:
            if name not in keys_read(config, section) and not (section == "" and name in ALWAYS):
                key = f"{section}.{name}".lstrip(".")
                found[key] = _reason(config, section, name)
    return found


def check_keys(config: Section, *, sections: Iterable[str] = ALWAYS) -> None:
    """Refuse keys that nothing reads.

    Raises:
      UserError: names each, and what reads it.
    """
    reasons = unread(config, sections=sections)
    if reasons:
        raise UserError("; ".join(reasons.values()))


def without_unread(config: Section, given: Collection[str]) -> Section:
    """The configuration without the keys that nothing reads.

    Args:
      config: with the keys of every choice.
      given: keys that somebody set, like `loss.num_bins`.

    Raises:
      UserError: if one of these is among them.
    """
    reasons = unread(config)
    in_vain = [reason for key, reason in reasons.items() if any(f"{name}.".startswith(f"{key}.") for name in given)]
    if in_vain:
        raise UserError("; ".join(in_vain))
    kept = Section(config)
    for key in reasons:
        section, _, name = key.rpartition(".")
        if section:
            kept[section] = Section({k: value for k, value in kept[section].items() if k != name})
        else:
            del kept[name]
    return kept


def brought_up_to_date(config: Section) -> Section:
    """A stored configuration as it would be written today: with the keys of `EARLIER`, without unread ones."""
    if "optimizer" in config:  # parameters from elsewhere have no training
        lacked = {section: Section(EARLIER[section] | config.get(section, {})) for section in EARLIER if section}
        config = Section(EARLIER[""] | config | lacked)
    return without_unread(config, given=())


def _choices(config: Section, section: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]], str]]:
    """The choices of a section: their key, the keys that each value reads, and the value."""
    for key, values in choices().items():
        owner, _, name = key.partition(".")
        if owner == section and name in config.get(section, {}):
            value = config[section][name]
            yield key, values, value if isinstance(value, str) else repr(value)


def _reason(config: Section, section: str, name: str) -> str:
    full = f"config.{section}.{name}" if section else f"config.{name}"
    readers = [
        f"config.{key} {' or '.join(readers)}, not by {value}"
        for key, values, value in _choices(config, section)
        if (readers := [choice for choice, names in values.items() if name in names])
    ]
    if readers:
        return f"{full} is set in vain: it is read by {' and by '.join(readers)}"
    known = sorted(keys_read(config, section) | (set(ALWAYS) - {""} if section == "" else set()))
    close = difflib.get_close_matches(name, known, 1)
    return f"{full}: there is no such key; {f'did you mean {close[0]}?' if close else 'there are ' + ', '.join(known)}"
