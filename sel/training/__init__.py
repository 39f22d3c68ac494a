"""Training: from a configuration and pairs to checkpoints."""

from sel.training.build import Parts, build_parts, build_restore
from sel.training.checkpoint import find_checkpoint, latest_step, read_config, read_params
from sel.training.config import Section, from_json
from sel.training.loop import train
from sel.training.state import TrainState

__all__ = [
    "Parts",
    "Section",
    "TrainState",
    "build_parts",
    "build_restore",
    "find_checkpoint",
    "from_json",
    "latest_step",
    "read_config",
    "read_params",
    "train",
]
