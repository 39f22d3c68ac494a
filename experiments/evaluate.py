"""Score a trained model: the command `sel evaluate`, from the checkout.

python -m experiments.evaluate --help
"""

from sel.cli.dispatch import run_program

if __name__ == "__main__":
    run_program("evaluate")
