"""SICE: series of exposures, 531 of 589 scenes for training (Cai et al., IEEE TIP 2018).

    python -m experiments.train --config=configs/sice.py --config.data.root=SICE --workdir=runs/sice

SICE is the folder that the download unpacks to, its zip archive, or what `experiments.prepare_data` wrote.
Pairs are the exposures one and two stops below the middle with the reference of their scene; validation holds out
scenes. Photographs are large: decoded, they may take more than `config.data.cache_gib`.
No run has been made with it yet. Variants: small and full, as of configs/lol_v1.py.
"""

from ml_collections import ConfigDict

from configs.lol_v1 import get_config as get_lol_v1


def get_config(variant: str = "small") -> ConfigDict:
    """LOL v1's configuration with other data."""
    config = get_lol_v1(variant)
    config.data.name = "sice"
    return config
