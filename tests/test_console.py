"""Telling never breaks doing: what output can't show, a reader that goes away; progress, and a missing backend."""

import os
import subprocess
import sys

import pytest
from programs import ROOT
from rich.console import Console

import sel.cli.console
from sel.cli import progress

PRINTING = """
import sys
from sel.cli.console import console, run
def main():
    for number in range(3000):
        console.print("\\u591c\\u666f.jpg", "\\udcff", number)
    print("done", file=sys.stderr)
run(main)
"""


def start(**environment):
    command = [sys.executable, "-c", PRINTING]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_names_that_the_output_cannot_show_stop_nothing():
    out, err = start(PYTHONIOENCODING="cp1252").communicate(timeout=60)
    assert out.splitlines()[-1].split() == [b"\\u591c\\u666f.jpg", b"\\udcff", b"2999"]
    assert err.strip() == b"done"


def test_a_reader_that_goes_away_stops_nothing():
    process = start()
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read().strip() == b"done"
    assert process.wait(60) == 0
    process.stderr.close()


def test_a_missing_backend_is_one_line():
    code = "import jax; from sel.cli.console import run; run(lambda: print(jax.devices()))"
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("error: JAX finds no device for JAX_PLATFORMS=cuda")
    assert "Traceback" not in found.stderr


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def said(monkeypatch):
    """What is printed without a terminal."""
    lines = []
    console = Console(force_terminal=False)
    monkeypatch.setattr(console, "print", lines.append)
    monkeypatch.setattr(sel.cli.console, "console", console)
    return lines


def test_the_time_left_is_that_of_the_present_speed(clock, said):
    """Neither that of the first one, which waits for the compiler, nor of a slow beginning long ago."""
    with progress.Progress("counting", 1000) as report:
        for done, now in ((1, 300.0), (2, 320.0), (3, 340.0)):
            clock[0] = now
            report(done)
        for done in range(4, 104):
            clock[0] += 1
            report(done)
    assert said[0] == "counting 1/1000"
    assert said[1].endswith("  5:32:40 left")  # 998 at 20 s
    assert said[-1] == "counting 99/1000  0:15:01 left"  # 901 at 1 s


def test_whatever_takes_long_says_something_without_a_terminal(clock, said):
    for _ in progress.with_progress("abcd", "validating"):
        clock[0] += 20
    assert [line.split("  ")[0] for line in said] == [f"validating {n}/4" for n in (1, 2, 3, 4)]
    said.clear()
    for _ in progress.with_progress("abcd", "validating"):
        clock[0] += 1
    assert said == []
