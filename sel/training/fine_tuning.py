"""Training that begins with the parameters of another checkpoint: `config.init_from`."""

from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding

from sel.choices import differences, to_dict
from sel.errors import UserError
from sel.training.checkpoint import find_checkpoint, read_config, read_params
from sel.training.config import Config
from sel.training.state import abstract_params


def find_init(config: Config) -> Path | None:
    """The checkpoint that `config.init_from` names, or None for random parameters.

    Its network must be that of `config.model`; only the precision of the computation may be another, as parameters are
    float32 always.

    Raises:
      UserError: if there is no such checkpoint, or its network is another; the keys that differ are named.
    """
    if not config.init_from:
        return None
    try:
        checkpoint = find_checkpoint(config.init_from)
        stored = read_config(checkpoint)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    before, now = (to_dict(c)["model"] | {"dtype": None} for c in (stored, config))
    different = differences(before, now, where="config.model")
    if different:
        raise UserError(f"config.init_from: the network of {checkpoint} is another one: {'; '.join(different)}")
    return checkpoint


def read_init(checkpoint: Path, config: Config, sharding: Sharding) -> Any:
    """The averaged parameters of the checkpoint that `find_init` found.

    Raises:
      UserError: if they are damaged, or not those of the network that their configuration names.
    """
    params = read_params(checkpoint, sharding=sharding)
    expected = abstract_params(config.model)
    found, wanted = (jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (params, expected))
    if found != wanted:
        raise UserError(f"config.init_from: {checkpoint} holds other parameters than those of its own network")
    return params
