"""The published low-light training, as exactly as it can be had: for parity, not for the best model.

    python -m experiments.train --config=configs/published.py --config.data.root=LOL --workdir=runs/published

Network of 287,965,571 parameters, 128 x 128 crops, flips, turns and a 20 % chance of a 0.8 resize, batches of 8, AdamW
(1e-4, 0.9, 0.99) without weight decay or clipping, a cosine to 1e-6 over 500,000 steps without warm-up, an average of
parameters every 10 steps (0.995, warmed up as by ema_pytorch); max_sigma 50/255, T 100, cosine, eps 0.005; t uniform
and without weights; x_{t-1} compared by the Hellinger distance at 32 bins in its published variant, with neighbour
weights drawn from N(0, 1) in each step; the posterior sampler. Square roots are the safe ones of this project: with the
released ones 73 to 100 % of the gradient is NaN.

What stays different: weights start as truncated normals instead of PyTorch's uniform defaults, and random numbers
are other ones.

Memory of training in float32 at batch 8: measured on CPU (2 cores), 11.2 GiB at the peak of the process over three
steps, compilation included; by the compiler's account 4.3 GiB of state (parameters, their average, two moments of
AdamW) and 4.9 GiB of temporaries. For a GPU, where the loss is `dense`, that account, made by compiling it for CPU,
gives 4.3 and 6.6 GiB: an estimate, not measured there. Either is below 24 GB without rematerialisation.

Source: Lian et al., arXiv 2404.09735, and the option file entropy-refusion.yml of its code. That file sets no weight
decay, which the code then takes to be 0.
"""

from ml_collections import ConfigDict

from configs.lol_v1 import get_config as get_lol_v1


def get_config() -> ConfigDict:
    """LOL v1 at the published size and length, with the published loss and sampler."""
    config = get_lol_v1("full")
    config.optimizer.weight_decay = 0.0
    config.ema.warmup = "power"
    config.loss.variant = "published"
    config.loss.neighbor_weights = "normal"
    config.loss.value_range = (0.0, 1.0)
    config.sampler.clip_x0 = None
    config.sampler.num_steps = 100
    return config
