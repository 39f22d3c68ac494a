"""Serve a page that brightens photographs: the command `sel app`, from the checkout.

python -m experiments.app --help
"""

from sel.cli.dispatch import run_program

if __name__ == "__main__":
    run_program("app")
