"""Turn published PyTorch weights into a checkpoint: the command `sel convert`, from the checkout.

python -m experiments.convert_torch --help
"""

from sel.cli.dispatch import run_program

if __name__ == "__main__":
    run_program("convert")
