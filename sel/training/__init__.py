"""Training: from a configuration and pairs to checkpoints."""

from sel.training.checkpoint import find_checkpoint, read_config, read_params
from sel.training.loop import train

__all__ = ["find_checkpoint", "read_config", "read_params", "train"]
