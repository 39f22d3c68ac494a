"""Memory in pages of 2 MiB instead of 4 KiB, for programs that compute on a CPU."""

import os
import re
import sys
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# An option of Python that only this reads: it outlives a start that drops the environment.
_MARK = "large_pages"


def use_large_pages(kernel: Path = _KERNEL) -> None:
    """Start this program again, once, with a C library that asks the kernel for large pages.

    XLA on CPU takes the memory of a step anew each time, and the kernel prepares it page by page: with large ones a
    training step took a tenth to two fifths less time, depending on the machine (docs/benchmarks/step.md). glibc reads
    what it is to do only as a process begins, hence the second start: the same process, command and standard streams.
    It costs hundredths of a second if it comes before JAX is imported.

    Nothing happens where glibc is older than 2.35 or the kernel gives large pages to all or to nobody, where
    GLIBC_TUNABLES says anything of them (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0` forbids them), and in a program that
    was started through a debugger, a profiler or anything else than `python -m` or the installed command.

    Args:
        kernel: Where Linux tells who gets large pages; "madvise", Debian's and Ubuntu's choice, are those who ask.
    """
    tunables, command = os.environ.get("GLIBC_TUNABLES", ""), _command()
    options, ending = sys.orig_argv[1 : -len(command)], sys.orig_argv[-len(command) :]
    if _TUNABLE in tunables or _MARK in sys._xoptions or ending != command:
        return
    if not all(option.startswith("-") for option in options) or not _library_can_ask():
        return
    environment = {**os.environ, "GLIBC_TUNABLES": f"{tunables}:{_TUNABLE}=1".lstrip(":")}
    try:
        if "[madvise]" in kernel.read_text():
            os.execve(sys.executable, [sys.executable, *options, f"-X{_MARK}", *command], environment)
    except OSError:  # it is slower, nothing else
        return


def _command() -> list[str]:
    """What Python was told to run, if it was told this program: `-m NAME` or a script, and the arguments."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]
    return [*program, *sys.argv[1:]]


def _library_can_ask() -> bool:
    try:
        version = re.fullmatch(r"glibc 2\.(\d+)", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError, OSError):  # another system, or another C library
        return False
    return version is not None and int(version[1]) >= 35
