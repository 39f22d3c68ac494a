"""`python -m sel.cli PROGRAM ...` is `sel PROGRAM ...`."""

from sel.cli.dispatch import main

if __name__ == "__main__":
    main()
