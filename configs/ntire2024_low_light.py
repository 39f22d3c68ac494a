"""NTIRE 2024 low light: 230 pairs of up to 6000 x 4000 (Liu et al., arXiv 2404.14248).

    python -m experiments.train --config=configs/ntire2024_low_light.py --config.data.root=NTIRE --workdir=runs/ntire

NTIRE is the folder that the download unpacks to, its zip archive, or what `experiments.prepare_data` wrote.
Validation holds out scenes: the references of the challenge's own validation and test images are not public.
Decoded, the photographs may take 33 GB (`config.data.cache_gib`).
No run has been made with it yet. Variants: small and full, as of configs/lol_v1.py.
"""

from ml_collections import ConfigDict

from configs.lol_v1 import get_config as get_lol_v1


def get_config(variant: str = "small") -> ConfigDict:
    """LOL v1's configuration with other data."""
    config = get_lol_v1(variant)
    config.data.name = "ntire2024_low_light"
    return config
