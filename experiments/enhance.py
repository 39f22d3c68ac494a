"""Enhance photographs: the command `sel enhance`, from the checkout.

python -m experiments.enhance --help
"""

from sel.cli.dispatch import run_program

if __name__ == "__main__":
    run_program("enhance")
