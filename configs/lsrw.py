"""LSRW: 5,600 pairs from a telephone and a camera (Hai et al., arXiv 2106.14501).

    python -m experiments.train --config=configs/lsrw.py --config.data.root=LSRW --workdir=runs/lsrw

LSRW is the folder that the download unpacks to, its zip archive, or what `experiments.prepare_data` wrote.
Validation holds out scenes.
No run has been made with it yet. Variants: small and full, as of configs/lol_v1.py.
"""

from ml_collections import ConfigDict

from configs.lol_v1 import get_config as get_lol_v1


def get_config(variant: str = "small") -> ConfigDict:
    """LOL v1's configuration with other data."""
    config = get_lol_v1(variant)
    config.data.name = "lsrw"
    config.data.validation = 0.05
    return config
