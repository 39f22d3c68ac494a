import os
import subprocess
import sys
from pathlib import Path

import pytest

from sel.cli.large_pages import _library_can_ask

ROOT = Path(__file__).parents[1]
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")

PROGRAM = """
import os, sys
from pathlib import Path
from sel.cli.large_pages import use_large_pages
print("begun", flush=True)
use_large_pages(*map(Path, os.environ.get("KERNEL", "").split()))
pages = bytearray(b"x") * 2**26
large = sum(int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("AnonHugePages"))
print(os.getpid(), os.environ.get("GLIBC_TUNABLES", "unset"), large // 1024, sys.argv[1:], sys.stdin.read(), sep="|")
"""

pytestmark = [
    pytest.mark.skipif(not KERNEL.exists(), reason="Linux alone gives large pages to those who ask"),
    pytest.mark.skipif(not _library_can_ask(), reason="the C library can't ask for them"),
]


def start(folder, *options, module=("-m", "program"), kernel="always [madvise] never", tunables=None):
    (folder / "program.py").write_text(PROGRAM)
    (folder / "enabled").write_text(kernel)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "KERNEL": str(folder / "enabled")}
    environment.pop("GLIBC_TUNABLES", None)
    if tunables:
        environment["GLIBC_TUNABLES"] = tunables
    process = subprocess.Popen(
        [sys.executable, *module, *options],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate("from stdin")
    assert process.returncode == 0, err
    *begun, last = out.splitlines()
    pid, tunables, large, arguments, text = last.split("|")
    assert (int(pid), text) == (process.pid, "from stdin")
    return len(begun), tunables, int(large), arguments


def test_program_starts_again_once_as_the_same_process_with_its_arguments(tmp_path):
    begun, tunables, _, arguments = start(tmp_path, "--a=b c", "-m", "program", "")
    assert (begun, tunables) == (2, "glibc.malloc.hugetlb=1")
    assert arguments == str(["--a=b c", "-m", "program", ""])


def test_other_tunables_are_kept(tmp_path):
    begun, tunables, *_ = start(tmp_path, tunables="glibc.malloc.arena_max=2")
    assert (begun, tunables) == (2, "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1")


def test_what_somebody_chose_stays(tmp_path):
    assert start(tmp_path, tunables="glibc.malloc.hugetlb=0")[:2] == (1, "glibc.malloc.hugetlb=0")


@pytest.mark.parametrize("kernel", ["[always] madvise never", "always madvise [never]"])
def test_nothing_happens_where_the_kernel_asks_nobody(tmp_path, kernel):
    assert start(tmp_path, kernel=kernel)[:2] == (1, "unset")


def test_nothing_happens_where_the_kernel_says_nothing(tmp_path):
    assert start(tmp_path, kernel="")[:2] == (1, "unset")


def test_a_program_that_python_did_not_start_by_name_is_left_alone(tmp_path):
    runner = "import runpy, sys; sys.argv[1:] = ['x']; runpy.run_module('program', run_name='__main__')"
    assert start(tmp_path, module=("-c", runner))[:2] == (1, "unset")


@pytest.mark.parametrize("tool", [("-m", "cProfile", "-o", "profile"), ("-m", "trace", "--count", "-C", "counts")])
def test_what_watches_a_program_is_not_started_again(tmp_path, monkeypatch, tool):
    monkeypatch.chdir(tmp_path)
    target = ("-m", "program") if "cProfile" in tool else ("--module", "program")
    assert start(tmp_path, module=(*tool, *target))[:2] == (1, "unset")


def test_options_of_python_are_kept(tmp_path):
    assert start(tmp_path, module=("-u", "-B", "-m", "program"))[:2] == (2, "glibc.malloc.hugetlb=1")


def test_it_starts_once_even_if_the_environment_is_lost(tmp_path):
    assert start(tmp_path, module=("-Xlarge_pages", "-m", "program"))[:2] == (1, "unset")


@pytest.mark.skipif("[madvise]" not in (KERNEL.read_text() if KERNEL.exists() else ""), reason="the kernel has its way")
def test_memory_comes_in_large_pages(tmp_path):
    without, asked = (start(tmp_path, kernel=kernel)[2] for kernel in ("[always]", "[madvise]"))
    assert without < 8
    assert asked > without + 8  # of 64 MiB, as many as the kernel has


@pytest.mark.parametrize("name", ["experiments.train", "benchmarks.step", "benchmarks.enhance"])
def test_programs_that_compute_ask_before_jax_is_imported(name):
    source = (ROOT / f"{name.replace('.', '/')}.py").read_text()
    call = "use_large_pages()"
    assert call in source
    assert source.index(call) < source.index("import jax")


@pytest.mark.parametrize("name", ["evaluate", "enhance", "app"])
def test_commands_ask_before_jax_is_imported(name):
    assert f'run_program("{name}")' in (ROOT / f"experiments/{name}.py").read_text()
    script = f"""
import sys
from sel.cli import dispatch
dispatch.use_large_pages = lambda: sys.exit(f"asked {{'jax' in sys.modules}}")
dispatch.run_program({name!r})
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "asked False"
