"""Curves and pictures of a run as TensorBoard reads them; written without TensorFlow."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


class Board:
    """Event files in a folder, one for each start of a run; `tensorboard --logdir=FOLDER` shows them while it goes on.

    Nothing is written before the first step, and only by the first process. A run that goes on after a crash tells
    readers to forget what it does again: the first step that is reported again, and all later ones.

    Written here and now: the threads of `tensorboardX.SummaryWriter` hide a full disk, and block the run in the end.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writes = jax.process_index() == 0
        self._file: EventsWriter | None = None
        self._pictured = -1

    def __enter__(self) -> "Board":
        """Use until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def begin(self, step: int) -> None:
        """Open a file, at the first step of this process.

        Raises:
          OSError: if it can't be written.
        """
        if not self._writes or self._file:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        # Otherwise named by the second: a run that crashed in this same one must keep its file.
        self._file = EventsWriter(str(self._folder / "events"), f".{os.getpid()}.{step}")
        # Without this event, readers keep both curves where an interrupted run overlaps with its continuation.
        self._write(step, session_log=SessionLog(status=SessionLog.START))

    def log(self, line: Mapping[str, Any]) -> None:
        """Add the numbers of a line of metrics.jsonl to their curves, those of validation to others than of training.

        Raises:
          OSError: if they can't be written.
        """
        self.begin(line["step"])
        tags = {name: "train/" + name for name in line} | {
            name: name.replace("_", "/", 1) for name in line if name.startswith("validation_")
        }
        numbers = {name: value for name, value in line.items() if name != "step" and isinstance(value, (int, float))}
        values = [value for name, number in numbers.items() for value in summary.scalar(tags[name], number).value]
        self._write(line["step"], summary=summary.Summary(value=values))

    def image(self, step: int, tag: str, pixels: np.ndarray) -> None:
        """Add a picture `[h, w, 3]` uint8, unless this step has one.

        Raises:
          OSError: if it can't be written.
        """
        if step != self._pictured:
            self._write(step, summary=summary.image(tag, pixels, dataformats="HWC"))
        self._pictured = step

    def _write(self, step: int, **content: Any) -> None:
        if self._file:
            self._file.write_event(Event(wall_time=time.time(), step=step, **content))
            self._file.flush()
