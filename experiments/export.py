"""Write a model and its sampler as one StableHLO file: the command `sel export`, from the checkout.

python -m experiments.export --help
"""

from sel.cli.dispatch import run_program

if __name__ == "__main__":
    run_program("export")
