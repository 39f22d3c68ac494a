"""LOL v2, synthetic: 900 darkened photographs of 384 x 384 (Yang et al., IEEE TIP 2021).

    python -m experiments.train --config=configs/lol_v2_synthetic.py --config.data.root=LOL-v2 --workdir=runs/syn

LOL-v2 is the folder that the download unpacks to, its zip archive, or what `experiments.prepare_data` wrote.
Validation holds out scenes.
No run has been made with it yet. Variants: small and full, as of configs/lol_v1.py.
"""

from ml_collections import ConfigDict

from configs.lol_v1 import get_config as get_lol_v1


def get_config(variant: str = "small") -> ConfigDict:
    """LOL v1's configuration with other data."""
    config = get_lol_v1(variant)
    config.data.name = "lol_v2_synthetic"
    return config
