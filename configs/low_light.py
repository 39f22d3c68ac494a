"""Public low-light sets other than LOL v1: its configuration with other data.

    python -m experiments.train --config=configs/low_light.py:sice --config.data.root=SICE --workdir=runs/sice

The root is the folder that the download unpacks to, its zip archive, or what `experiments.prepare_data` wrote.
Validation holds out scenes. No run has been made with them yet. Variants, of which NAME,full has the published size and
length, as configs/lol_v1.py:full:

  lol_v2_real          689 pairs of 600 x 400 photographs (Yang et al., IEEE TIP 2021). Most of its 100 test images are
                       training images of LOL v1, and few are new.
  lol_v2_synthetic     900 darkened photographs of 384 x 384 (as above).
  sice                 series of exposures, 531 of 589 scenes for training (Cai et al., IEEE TIP 2018). Pairs are the
                       exposures one and two stops below the middle with the reference of their scene. Photographs are
                       large: decoded, they may take more than `config.data.cache_gib`.
  lsrw                 5,600 pairs from a telephone and a camera (Hai et al., arXiv 2106.14501).
  ntire2024_low_light  230 pairs of up to 6000 x 4000 (Liu et al., arXiv 2404.14248); the references of the challenge's
                       own validation and test images are not public. Decoded, they may take 33 GB.
"""

from ml_collections import ConfigDict

from configs.lol_v1 import get_config as get_lol_v1

# The fraction that is held out for validation.
SETS = {"lol_v2_real": 0.1, "lol_v2_synthetic": 0.1, "sice": 0.1, "lsrw": 0.05, "ntire2024_low_light": 0.1}


def get_config(variant: str = "") -> ConfigDict:
    """LOL v1's configuration with the data of `NAME` or `NAME,full`."""
    name, _, size = variant.partition(",")
    if name not in SETS or size not in ("", "small", "full"):
        names = ", ".join(SETS)
        raise ValueError(f"variant of configs/low_light.py must be one of {names}, or NAME,full, found {variant!r}")
    config = get_lol_v1(size or "small")
    config.data.name = name
    config.data.validation = SETS[name]
    return config
