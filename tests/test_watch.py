"""Several processes of one run of which one is lost, or fails: the others end, soon, and say why."""

import signal
import socket
import time

import pytest
from programs import start_code

SCRIPT = """
import sys
import jax
import numpy as np
port, process, fails = sys.argv[1:]
jax.distributed.initialize("localhost:" + port, 2, int(process), heartbeat_timeout_seconds=60)
from jax.experimental import multihost_utils
from experiments.run.watch import Watch
from sel.errors import UserError
with Watch(lost_after=3):
    for step in range(10**6):
        multihost_utils.process_allgather(np.ones(2))
        if step == 1:
            print("runs", file=sys.stderr, flush=True)
        if step == 50 and fails == process:
            raise UserError("the disk is full")
        if step == 60 and fails == "none":
            break
print("the end", file=sys.stderr)
"""


def start(fails=""):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    return [start_code(SCRIPT, port, str(i), fails) for i in range(2)]


def wait_until_they_run(processes):
    for process in processes:
        for line in process.stderr:
            if line.strip() == "runs":
                break


def test_the_others_end_with_the_status_that_means_again_and_name_what_is_lost():
    pairs = {victim: start() for victim in (0, 1)}
    for victim, processes in pairs.items():
        wait_until_they_run(processes)
        processes[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    for victim, processes in pairs.items():
        _, err = processes[1 - victim].communicate(timeout=60)
        assert processes[1 - victim].returncode == 75, err
        assert err.splitlines()[-1].startswith(f"error: lost sight of process {victim} of 2"), err
        processes[victim].communicate()
    assert time.monotonic() - began < 45


@pytest.mark.parametrize("fails", ["0", "1"])
def test_a_process_that_fails_ends_the_others_with_its_reason(fails):
    processes = start(fails)
    texts = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], texts
    assert texts[int(fails)].splitlines()[-1] == "error: the disk is full"
    assert texts[1 - int(fails)].splitlines()[-1] == f"error: process {fails} failed: the disk is full"


def test_processes_that_end_in_order_end_well():
    processes = start("none")
    texts = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
