"""Are the eight neighbours equal, or weighted by chance in each step, as published? Three seeds each.

python -m experiments.sweep --sweep=configs/sweeps/neighbor_weights.py --parallel=2
"""

from configs.sweeps.space import Changes, crossed, grid


def get_sweep() -> list[Changes]:
    """Nine trials; the first of each seed has equal weights, the default."""
    drawn = grid({"loss.neighbor_weights": ("dirichlet", "normal")})
    return crossed([{}, *drawn], grid({"seed": (0, 1, 2)}))
