"""LOL v1: 485 pairs of 600 x 400 photographs (Wei et al., "Deep Retinex Decomposition", BMVC 2018).

    python -m experiments.train --config=configs/lol_v1.py:small --config.data.root=LOL --workdir=runs/lol

LOL is the folder of the download, its zip archive, or what `experiments.prepare_data` wrote. A tenth of our485, in
whole scenes, is held out for validation; `--config.data.validation=validation` takes val/{low,high} instead, which the
download lacks. eval15 is the test set. See docs/results.md for what runs reached.

Variants:
  small: width 32, 1.3 M parameters, for one accelerator or a patient CPU.
  full: the published size (288 M parameters) and training length; memory as in `configs/published.py`.
"""

from ml_collections import ConfigDict

from configs.default import get_config as get_default


def get_config(variant: str = "small") -> ConfigDict:
    """The default with the sizes of a variant."""
    config = get_default()
    config.data.name = "lol_v1"
    config.data.train = "train"
    config.data.validation = 0.1
    if variant == "small":
        return config
    if variant != "full":
        raise ValueError(f"variant of configs/lol_v1.py must be small or full, found {variant!r}")
    config.num_steps = 500_000
    config.compute.cpu_devices = 1
    config.model.width = 64
    config.model.encoder_blocks = (1, 1, 1, 1, 28)
    config.model.decoder_blocks = (1, 1, 1, 1, 1)
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 0.0
    config.ema.decay = 0.995
    config.ema.every = 10
    config.data.resize_chance = 0.2
    config.checkpoint.every = 5000
    return config
