"""Programs for the command line: `python -m experiments.NAME --help`."""
