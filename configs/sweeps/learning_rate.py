"""Random search over the optimizer, for early stopping: `--launcher=ray`.

    python -m experiments.sweep --sweep=configs/sweeps/learning_rate.py:32 --launcher=ray --config.validate_every=50

The variant is the number of trials; a larger number continues a sweep with more of them.
"""

from configs.sweeps.space import Changes, log_uniform, sampled


def get_sweep(count: str = "16") -> list[Changes]:
    """Learning rate and weight decay, independent."""
    draws = {"optimizer.learning_rate": log_uniform(1e-4, 1e-2), "optimizer.weight_decay": log_uniform(1e-5, 1e-2)}
    return sampled(int(count), draws, seed=0)
