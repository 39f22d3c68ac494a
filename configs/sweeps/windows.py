"""How local are the distributions? One window, several, or the whole image.

python -m experiments.sweep --sweep=configs/sweeps/windows.py --parallel=2
"""

from configs.sweeps.space import Changes, grid


def get_sweep() -> list[Changes]:
    """Six trials."""
    return grid({"loss.windows": ((3,), (5,), (9,), (1, 3, 5), (3, 5, 9), "global")})
