"""Which divergence between the distributions, over how many bins?

python -m experiments.sweep --sweep=configs/sweeps/divergence.py --parallel=2
"""

from configs.sweeps.space import Changes, grid


def get_sweep() -> list[Changes]:
    """Twelve trials."""
    divergences = ("hellinger", "relative", "cross", "jensen_shannon")
    return grid({"loss.divergence": divergences, "loss.num_bins": (8, 16, 32)})
