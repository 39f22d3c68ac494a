"""The configuration of a run: one field for each key, with its default, its range and its meaning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from sel.choices import check, choice, parse, section, setting
from sel.data import Data, data_kinds
from sel.diffusion import SAMPLERS, Diffusion, Sampler
from sel.models import MODELS
from sel.objective import LOSSES, Loss, ObjectiveOptions
from sel.training.optimizer import OPTIMIZERS, Average, Optimizer


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How images are sampled."""

    method: Sampler = choice(SAMPLERS, "posterior", doc="the sampler")
    num_steps: int = setting(
        0,
        at_least=0,
        earlier=0,
        doc="steps of the sampler, at most those of the diffusion; 0: 16 where few are enough, otherwise all",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """Which checkpoints are kept."""

    every: int = setting(1000, at_least=1, doc="steps between checkpoints")
    keep: int = setting(2, at_least=1, doc="number of the newest that are kept")
    keep_best: int = setting(
        0, at_least=0, earlier=0, doc="number of the best by validation_psnr; with validate_every, each is saved"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How the work is done, not what: a run may go on with other values."""

    cpu_devices: int = setting(
        0, at_least=0, doc="on a CPU: devices, each with its part of a batch; 0: one for each core"
    )
    accumulate: int = setting(
        1, at_least=1, doc="parts of its images that a device takes one after another, to need less memory"
    )
    remat: bool = setting(False, doc="compute the insides of blocks twice, to need less memory")
    parameter_shards: int = setting(
        1, at_least=0, doc="devices that one copy of parameters and optimizer is split over; 0: all"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What a checkpoint says of itself, so that it can be used: its network, its diffusion, and a sampler."""

    model: nn.Module = choice(MODELS, "nafnet", selector="name", doc="the network")
    diffusion: Diffusion = section(Diffusion, doc="the diffusion")
    sampler: Sampling = section(Sampling, doc="how images are sampled, in use and in validation")

    def __post_init__(self) -> None:
        check(self)
        most = self.diffusion.num_steps
        if self.sampler.num_steps > most:
            raise ValueError(
                f"sampler.num_steps must be at most the {most} steps of the diffusion (diffusion.num_steps), "
                f"found {self.sampler.num_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """All that determines a run, and how its work is done."""

    seed: int = setting(0, at_least=0, doc="of the first parameters, the order of images, crops, t and noise")
    num_steps: int = setting(20_000, at_least=1, doc="steps of the whole run")
    batch_size: int = setting(8, at_least=1, doc="images of a step, on all devices together")
    log_every: int = setting(20, at_least=1, doc="steps between lines of metrics.jsonl")
    validate_every: int = setting(
        0, at_least=0, doc="steps between scores of a few validation images, for metrics.jsonl; 0: none"
    )
    max_skipped: int = setting(
        10,
        at_least=1,
        earlier=10,
        doc="steps in a row without a finite gradient, which change nothing, before training stops",
    )
    init_from: str = setting(
        "", doc='a checkpoint of the same network, whose parameters training begins with; "": random ones'
    )
    loss: Loss = choice(LOSSES, "spatial_entropy", selector="name", doc="how two images are compared")
    objective: ObjectiveOptions = section(ObjectiveOptions, doc="which images are compared, at which times")
    optimizer: Optimizer = choice(OPTIMIZERS, "adamw", selector="name", doc="the update rule")
    ema: Average = section(Average, doc="the moving average of parameters, which is what is used")
    data: Data = choice(data_kinds, "pairs", selector="name", doc="where images come from")
    checkpoint: Checkpointing = section(Checkpointing, doc="which checkpoints are kept")
    compute: Compute = section(Compute, doc="how the work is done; no part of a run", stored=False)


def from_stored(values: Mapping[str, Any]) -> ModelConfig:
    """The configuration that a checkpoint holds, of whatever version.

    Returns:
      A `Config`, or a `ModelConfig` of parameters from elsewhere, which were never trained here.

    Raises:
      UserError: if a value is none that there is.
    """
    sampler = dict(values["sampler"])
    # More steps than the diffusion has meant as many as it has.
    sampler["num_steps"] = min(sampler.get("num_steps", 0), values["diffusion"]["num_steps"])
    kind = Config if "optimizer" in values else ModelConfig
    return parse(kind, {**values, "sampler": sampler}, stored=True)
