"""Training: from a configuration and pairs to checkpoints."""

from sel.extras import needs

with needs("use"):
    from sel.training.build import Parts, build_parts, build_restore, sampler_steps
    from sel.training.checkpoint import (
        check_new_params,
        find_checkpoint,
        latest_step,
        read_config,
        read_params,
        save_params,
    )
    from sel.training.config import Config, ModelConfig, Sampling, from_stored
    from sel.training.fine_tuning import find_init
    from sel.training.hooks import Hooks
    from sel.training.images_seen import images_seen, write_record
    from sel.training.loop import Stopped, train
    from sel.training.state import TrainState

__all__ = [
    "Config",
    "Hooks",
    "ModelConfig",
    "Parts",
    "Sampling",
    "Stopped",
    "TrainState",
    "build_parts",
    "build_restore",
    "check_new_params",
    "find_checkpoint",
    "find_init",
    "from_stored",
    "images_seen",
    "latest_step",
    "read_config",
    "read_params",
    "sampler_steps",
    "save_params",
    "train",
    "write_record",
]
