"""`python -m sel.cli PROGRAM ...`, and the command `sel PROGRAM ...` of an installation."""

import sys

from sel.cli.dispatch import PROGRAMS, run_program


def main() -> None:
    """Run the program that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        lines = [f"  sel {program:<10} {summary}" for program, (_, summary) in PROGRAMS.items()]
        known = name in ("", "-h", "--help", "help")
        text = "\n".join(["usage: sel PROGRAM --FLAG=VALUE ...", "", *lines, "", "sel PROGRAM --help lists its flags."])
        if known:
            print(text)
        else:
            print(f"error: sel has no program {name!r}; it has {', '.join(PROGRAMS)}", file=sys.stderr)
        sys.exit(0 if known else 1)
    del sys.argv[1]
    run_program(name)


if __name__ == "__main__":
    main()
