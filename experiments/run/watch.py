"""The processes of one run watch each other: when one is lost, or fails, the others end instead of waiting for ever.

JAX ends them too, but later, with an abort that tells nobody whether to try again. Here they end with the status that
means "again", and name the process of which they lost sight.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any, NoReturn

import jax
from jax._src.distributed import global_state  # no public name leads to the store that the processes share

from experiments.run.stopping import PREEMPTED
from sel.errors import UserError

_PLACE = "sel/alive/"
_ENDED, _FAILED = "ended", "failed: "


class Watch:
    """Signs of life in the store that process 0 keeps for all of them, written and looked at by a thread.

    A process that does not end its block in order is one that failed: the others end with status 1.
    """

    def __init__(self, lost_after: float):
        """Wait for a block to begin.

        Args:
          lost_after: seconds without a sign of life after which a process counts as lost.
        """
        self._lost_after, self._interval = lost_after, lost_after / 10
        self._left = threading.Event()
        self._seen: dict[int, tuple[str | None, float]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        """Begin to watch, if there are others."""
        if jax.process_count() > 1:
            self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._end_after_abort)
            # JAX aborts as soon as process 0 is gone. The abort is one of this process's own threads, not an interrupt
            # at any place, so that Python may run; but Python's own handlers would come too late.
            ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others how this process ends; if it fails, it ends here."""
        if jax.process_count() == 1:
            return
        if error is None or isinstance(error, SystemExit):
            self._left.set()
            with contextlib.suppress(Exception):
                self._write(_ENDED)
            return
        if not isinstance(error, UserError | KeyboardInterrupt) or error.__cause__:
            # Perhaps only because another is lost: then the thread ends this process.
            self._thread.join(2 * self._lost_after)
        if not isinstance(error, UserError | KeyboardInterrupt):
            traceback.print_exception(error)
        reason = " ".join(str(error).split()) or type(error).__name__
        self._left.set()
        with contextlib.suppress(Exception):
            self._write(_FAILED + reason)
            time.sleep(3 * self._interval if jax.process_index() == 0 else 0)  # the store goes with process 0
        _leave(reason, 1)

    def _watch(self) -> None:
        number, answered = 0, time.monotonic()
        while not self._left.wait(self._interval):
            number += 1
            try:
                self._write(str(number))
                found = self._read()
            except Exception:  # of gRPC
                if time.monotonic() - answered > self._lost_after and not self._left.is_set():
                    self._end([0])
                continue
            answered = time.monotonic()
            self._look(found, answered)

    def _look(self, signs: dict[int, str], now: float) -> None:
        """Compare with what was seen before."""
        lost = []
        for process in range(jax.process_count()):
            sign = signs.get(process)
            before, since = self._seen.setdefault(process, (sign, now))
            if sign != before:
                self._seen[process] = (sign, now)
            elif sign != _ENDED and now - since > self._lost_after:
                lost.append(process)
            if sign and sign.startswith(_FAILED) and not self._left.is_set():
                _leave(f"process {process} {sign}", 1)
        if lost and not self._left.is_set():
            if jax.process_index() == 0:  # the others are to find out for themselves
                time.sleep(3 * self._interval)
            self._end(lost)

    def _end(self, lost: list[int]) -> NoReturn:
        names = ", ".join(map(str, lost))
        seconds = f"{self._lost_after:g} s without a sign of life"
        _leave(f"lost sight of process {names} of {jax.process_count()} ({seconds}); {_AGAIN}", PREEMPTED)

    def _end_after_abort(self, _number: int) -> None:
        """If process 0 is gone, end as after any loss; otherwise the abort goes on."""
        host, _, port = str(global_state.coordinator_address).rpartition(":")
        if jax.process_index() == 0:
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError:
            _leave(f"lost sight of process 0 of {jax.process_count()}, at {host}:{port}; {_AGAIN}", PREEMPTED)

    def _read(self) -> dict[int, str]:
        client: Any = global_state.client
        return {int(name.rpartition("/")[2]): sign for name, sign in client.key_value_dir_get(_PLACE)}

    def _write(self, sign: str) -> None:
        client: Any = global_state.client
        client.key_value_set(f"{_PLACE}{jax.process_index()}", sign, allow_overwrite=True)


_AGAIN = "the same command, in all processes, goes on from the last checkpoint"


def _leave(message: str, status: int) -> NoReturn:
    """End at once: whatever waits for the others would wait for ever."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        os.write(2, f"\nerror: {message}\n".encode(errors="backslashreplace"))
    os._exit(status)
