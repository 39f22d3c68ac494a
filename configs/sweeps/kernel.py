"""Which kernel counts pixels into bins, and how wide, in bins?

python -m experiments.sweep --sweep=configs/sweeps/kernel.py --parallel=2
"""

from configs.sweeps.space import Changes, grid


def get_sweep() -> list[Changes]:
    """Twelve trials."""
    return grid({"loss.kernel": ("logistic", "sech", "gaussian"), "loss.bandwidth": (0.25, 0.5, 1.0, 2.0)})
