"""What a run will ask of its devices, worked out from shapes alone: parameters, operations and memory.

    python -m experiments.summary --config=configs/published.py --devices=2 --config.compute.parameter_shards=2

Nothing is allocated or compiled: the 288 M parameters of `configs/published.py` need no more than a laptop. `train`
prints the same, and what the compiler counts once it is done.
"""

import jax
from absl import flags

from experiments.run.config import PREFIX, load_config
from experiments.run.summary import print_summary, summarize
from sel.cli.console import require, run


def main(changes: list[str]) -> None:
    """Print the summary of a configuration."""
    # Devices are counted, not used: the processor can play any number of them.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", flags.FLAGS.devices)
    print_summary(summarize(load_config(flags.FLAGS.config, changes)))


if __name__ == "__main__":
    flags.DEFINE_string("config", "", "Configuration file, FILE or FILE:VARIANT.")
    flags.DEFINE_integer("devices", 1, "Devices that are to share a step.", lower_bound=1)
    require("config")
    run(main, prefix=PREFIX)
