"""A lock that a dead process does not keep, and the two that hold one: a training and a trial of a sweep."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from programs import ROOT
from tiny_runs import contents, run

from sel import lock
from sel.errors import UserError
from sel.lock import HeldError, hold

HOLD = """
import sys, time
from pathlib import Path
from sel.lock import hold
with hold(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / ".lock"], cwd=ROOT, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_lock_is_held_by_one_process_until_it_dies(other, tmp_path):
    with pytest.raises(HeldError, match=f"process {other.pid} on "), hold(tmp_path / ".lock"):
        pass
    other.send_signal(signal.SIGKILL)
    began = time.monotonic()
    with hold(tmp_path / ".lock", wait=True) as descriptor:
        assert descriptor is not None
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(HeldError), hold(tmp_path / ".lock"):
            pass
    assert time.monotonic() - began < 30
    with hold(tmp_path / ".lock"):
        pass


def test_a_second_training_in_a_folder_is_refused_and_touches_nothing(other, tmp_path):
    (tmp_path / "checkpoints/.new.4").mkdir(parents=True)
    (tmp_path / "checkpoints/.new.4/half").write_text("being written")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"another training runs in this folder \(process {other.pid} on "):
        run(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_disks_without_locks_are_used_without(tmp_path, monkeypatch, number):
    def unsupported(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with hold(tmp_path / ".lock") as descriptor:
        assert descriptor is None
