"""Training as a function: a tiny configuration, pairs, a run that may be interrupted."""

import copy
import json

import jax
import numpy as np
import pytest

from sel.choices import parse
from sel.data import Pair
from sel.training import Config, Hooks, train

CONFIG = {
    "seed": 3,
    "num_steps": 6,
    "batch_size": 4,
    "log_every": 2,
    "validate_every": 0,
    "model": {
        "name": "nafnet",
        "width": 4,
        "encoder_blocks": [],
        "middle_blocks": 1,
        "decoder_blocks": [],
        "dtype": "float32",
    },
    "diffusion": {"kind": "cosine", "num_steps": 10, "max_sigma": 0.2, "eps": 0.005},
    "loss": {"name": "l1"},
    "objective": {"compare": "x_prev", "t_sampling": "uniform", "t_weighting": "none"},
    "optimizer": {
        "name": "adamw",
        "schedule": "cosine",
        "learning_rate": 1e-3,
        "end_learning_rate": 1e-4,
        "warmup_steps": 2,
        "b1": 0.9,
        "b2": 0.99,
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
    },
    "ema": {"decay": 0.9, "every": 1, "warmup": "ratio"},
    "data": {"name": "samples", "crop_size": 16, "resize_chance": 0.5},
    "sampler": {"method": "posterior", "num_steps": 0, "clip_x0": [0.0, 1.0]},
    "checkpoint": {"every": 2, "keep": 2, "keep_best": 0},
    "max_skipped": 3,
    "compute": {"accumulate": 1, "remat": False, "parameter_shards": 1},
}
UNET = {"name": "unet", "width": 4, "depth": 1, "norm_epsilon": 1e-5, "dtype": "float32"}
L1 = {"name": "l1"}
ENTROPY = {"name": "spatial_entropy", "num_bins": 8, "windows": [1, 3], "value_range": [-0.3, 1.3]}


def written(changes=None, **more):
    """The tiny configuration as dictionaries, with changes, `{"loss.name": "l2"}`."""
    config = copy.deepcopy(CONFIG)
    for key, value in {**(changes or {}), **more}.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[name] = value
    return json.loads(json.dumps(config))


def configured(changes=None, **more):
    """The tiny configuration with changes."""
    return parse(Config, written(changes, **more))


def pair(seed, size=24):
    x0 = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Pair(f"pair {seed}", x0 // 8, x0)


PAIRS = tuple(pair(seed) for seed in range(5))
ONE_PAIR = (pair(0, size=16),)


class StopError(Exception):
    """What interrupts a run here."""


def run(workdir, config=None, pairs=PAIRS, stop_after=None):
    """Train, and return the final state and the losses as they were reported."""
    losses = []

    def report(step, metrics):
        losses.append(metrics["loss"])
        if step == stop_after:
            raise StopError

    return train(config or configured(), workdir, pairs, hooks=Hooks(on_step_end=report)), losses


def interrupted(workdir, after, **options):
    with pytest.raises(StopError):
        run(workdir, stop_after=after, **options)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_same(a, b):
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)
