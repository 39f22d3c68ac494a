"""Runs a command alone in its folder, and ends it when the process that asked for it ends.

    python -m experiments.sweeps.guard LOCK COMMAND...

stdin is a pipe from that process: the system closes it even if the process is killed, so that no training goes on that
nobody waits for. Training gets the time to save its state. LOCK is a file that one command holds at a time.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from sel.lock import HeldError, hold

# Seconds from asking the command to end until it is killed.
_GRACE = 30


def main(lock: str, *command: str) -> int:
    """Run the command; the status is the command's, or 128 + N if signal N ended it."""
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(hold(Path(lock)))
        except HeldError as other:
            print(f"{other} still works in this folder: waiting for its end", flush=True)
            held = stack.enter_context(hold(Path(lock), wait=True))
        kept = [] if held is None else [held]
        # The command holds the lock, too. Ray kills the children of its workers, that is guards: on Linux the command
        # hears of it. There is no other thread yet, which makes preexec_fn safe.
        end_with_guard = _ask_for_signal if sys.platform == "linux" else None
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=kept, preexec_fn=end_with_guard)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        threading.Thread(target=_end_with_parent, args=(child,), daemon=True).start()
        code = child.wait()
    return code if code >= 0 else 128 - code


def _ask_for_signal() -> None:
    set_parent_death_signal = 1  # of sys/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _end_with_parent(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be held at exit
        pass
    child.terminate()
    try:
        child.wait(_GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
