"""What a run will ask of its devices, worked out from shapes alone: parameters, operations and memory.

    python -m experiments.summary --config=configs/published.py --devices=2 --config.compute.parameter_shards=2
    python -m experiments.summary --keys

Nothing is allocated or compiled: the 288 M parameters of `configs/published.py` need no more than a laptop. `train`
prints the same, and what the compiler counts once it is done. With --keys: every key of the configuration, its default,
what it may be and what it means, which is docs/configuration.md.
"""

import jax
from absl import flags

from experiments.run.config import PREFIX, load_config
from experiments.run.reference import reference
from experiments.run.summary import print_summary, summarize
from sel.cli.arguments import define_path, refuse_unused
from sel.cli.console import run
from sel.errors import UserError


def main(changes: list[str]) -> None:
    """Print the summary of a configuration, or the keys that there are."""
    if flags.FLAGS.keys:
        refuse_unused(["devices"], unless=False, reason="with --keys")
        if changes:
            raise UserError(f"{changes[0]} has no effect with --keys")
        print(reference(), end="")
        return
    # Devices are counted, not used: the processor can play any number of them.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", flags.FLAGS.devices)
    print_summary(summarize(load_config(flags.FLAGS.config, changes)))


if __name__ == "__main__":
    define_path("config", "", "Configuration file, FILE or FILE:VARIANT.")
    flags.DEFINE_integer("devices", 1, "Devices that are to share a step.", lower_bound=1)
    flags.DEFINE_bool("keys", False, "Print every key of the configuration, and nothing else.")
    flags.register_multi_flags_validator(
        ["config", "keys"],
        lambda given: bool(given["config"]) != given["keys"],
        message="--config or --keys is required, and not both; --help explains them",
    )
    run(main, prefix=PREFIX)
