"""Training: from a configuration and pairs to checkpoints."""

from sel.training.build import Parts, build_model, build_parts, build_restore, model_section, sampler_steps
from sel.training.checkpoint import (
    check_new_params,
    find_checkpoint,
    latest_step,
    read_config,
    read_params,
    save_params,
)
from sel.training.config import Section, differences, from_json
from sel.training.fine_tuning import find_init
from sel.training.images_seen import images_seen, write_record
from sel.training.keys import check_keys, unread, without_unread
from sel.training.loop import Stopped, train
from sel.training.state import TrainState

__all__ = [
    "Parts",
    "Section",
    "Stopped",
    "TrainState",
    "build_model",
    "build_parts",
    "build_restore",
    "check_keys",
    "check_new_params",
    "differences",
    "find_checkpoint",
    "find_init",
    "from_json",
    "images_seen",
    "latest_step",
    "model_section",
    "read_config",
    "read_params",
    "sampler_steps",
    "save_params",
    "train",
    "unread",
    "without_unread",
    "write_record",
]
