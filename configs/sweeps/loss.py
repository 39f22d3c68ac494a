"""Pixelwise or distributional? l1 and l2 against the spatial entropy, three seeds each.

python -m experiments.sweep --sweep=configs/sweeps/loss.py --config=configs/lol_v1.py:small --config.data.root=LOL
"""

from configs.sweeps.space import Changes, grid


def get_sweep() -> list[Changes]:
    """Nine trials."""
    return grid({"loss.name": ("l1", "l2", "spatial_entropy"), "seed": (0, 1, 2)})
