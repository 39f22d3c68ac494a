"""Photographs that come with scikit-image, darkened by a camera model: no download, a few minutes on two CPU cores.

    python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

Two whole photographs are held out for validation, see `sel.data.sample_pairs`.
"""

from ml_collections import ConfigDict

from configs.default import get_config as get_default


def get_config() -> ConfigDict:
    """A network of 0.3 M parameters on 64 x 64 crops."""
    config = get_default(data="samples")
    config.num_steps = 400
    config.model.width = 16
    config.loss.num_bins = 16
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 30
    config.ema.decay = 0.99
    config.data.crop_size = 64
    config.checkpoint.every = 200
    return config
