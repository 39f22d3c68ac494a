"""Memory in pages of 2 MiB instead of 4 KiB, for programs that compute on a CPU."""

import os
import sys
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_large_pages(program: str, kernel: Path = _KERNEL) -> None:
    """Start `python -m PROGRAM` again, once, with a C library that asks the kernel for large pages.

    XLA on CPU takes the memory of a step anew each time, and the kernel prepares it page by page: with large ones a
    training step takes two thirds of the time (docs/benchmarks/step.md). glibc, from 2.35 on, reads what it is to do
    only as a process begins, hence the second start: the same process, command and standard streams. It costs
    hundredths of a second if it comes before JAX is imported.

    Nothing happens where it would be in vain or unwelcome: where the kernel gives large pages to all or to nobody,
    where GLIBC_TUNABLES says anything of them (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0` forbids them), in a debugger,
    and in a program that something else has started than the command line.

    Args:
        program: Name of the module that runs as `__main__`.
        kernel: Where Linux tells who gets large pages; "madvise", Debian's and Ubuntu's choice, are those who ask.
    """
    tunables, command = os.environ.get("GLIBC_TUNABLES", ""), ["-m", program, *sys.argv[1:]]
    if _TUNABLE in tunables or sys.orig_argv[-len(command) :] != command or sys.gettrace():
        return
    try:
        if "[madvise]" not in kernel.read_text():
            return
        os.environ["GLIBC_TUNABLES"] = f"{tunables}:{_TUNABLE}=1".lstrip(":")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:  # it is slower, nothing else
        return
