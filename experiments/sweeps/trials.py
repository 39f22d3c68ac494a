"""One trial of a sweep: its command, the process that runs it, and the files that tell what became of it.

A trial is a folder: what its program leaves (`validation.json` at the end, `metrics.jsonl` on the way), `log.txt` and
`outcome.json`. A sweep goes on from these files, whichever launcher wrote them.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sel.files import write_json

ROOT = Path(__file__).parents[2]

# Of a line of metrics.jsonl on the way, and of the mean in validation.json.
INTERMEDIATE, FINAL = "validation_psnr", "psnr"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One configuration of a sweep.

    Attributes:
      name: of its folder; begins with its number.
      changes: of the configuration, from key to value.
      folder: of its files.
      command: what runs it; the same command continues it.
      num_steps: of its training.
      validates: whether it is scored on the way.
    """

    name: str
    changes: dict[str, Any]
    folder: str
    command: tuple[str, ...]
    num_steps: int
    validates: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
      state: finished, stopped (early, by a scheduler), failed, or open.
      attempts: that came to an end.
      seconds: they took.
      error: the last line of the log of a failed trial.
    """

    state: str = "open"
    attempts: int = 0
    seconds: float = 0.0
    error: str = ""


def trial_name(index: int, changes: Mapping[str, Any]) -> str:
    """Number and last part of each key with its value, as far as a folder can be called so."""
    parts = [f"{index:03d}", *(f"{key.rpartition('.')[2]}={value}" for key, value in changes.items())]
    return re.sub(r"[^\w.=+-]+", "_", "-".join(parts))[:100].rstrip("_")


def flag(key: str, value: Any) -> str:
    """The change as an argument of the programs."""
    return f"--config.{key}={value if isinstance(value, str) else repr(value)}"


def start(trial: Trial, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start or continue a trial. It ends when this process ends, or closes the stdin of the returned one."""
    folder = Path(trial.folder)
    folder.mkdir(parents=True, exist_ok=True)
    guard = [sys.executable, "-m", "experiments.sweeps.guard", str(folder / ".trial.lock")]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*guard, *trial.command],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the sweep, which then ends its trials
        )


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let a trial save its state and end."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()


def read_outcome(trial: Trial) -> Outcome:
    """The last recorded outcome; open if there is none."""
    value = _read_json(Path(trial.folder) / "outcome.json")
    return Outcome(**value) if isinstance(value, dict) else Outcome()


def record(trial: Trial, state: str, seconds: float) -> Outcome:
    """Write down how one more attempt ended."""
    before = read_outcome(trial)
    error = _last_line(Path(trial.folder) / "log.txt") if state == "failed" else ""
    outcome = Outcome(state, before.attempts + 1, round(before.seconds + seconds, 1), error)
    path = Path(trial.folder) / "outcome.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dataclasses.asdict(outcome))
    return outcome


def is_done(trial: Trial, retries: int) -> bool:
    """Whether nothing is left to try: more retries than before open a failed trial again."""
    outcome = read_outcome(trial)
    return outcome.state in ("finished", "stopped") or (outcome.state == "failed" and outcome.attempts > retries)


def read_scores(trial: Trial) -> dict[str, float]:
    """The means over the validation images at the end of training; empty if it has not come to its end."""
    value = _read_json(Path(trial.folder) / "validation.json")
    return {key: score for key, score in value[-1].items() if key != "name"} if isinstance(value, list) else {}


def read_validations(trial: Trial) -> list[tuple[int, float]]:
    """Step and score of each validation before the end of training."""
    path = Path(trial.folder) / "metrics.jsonl"
    rows = [_parsed(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    scored = [(row["step"], row[INTERMEDIATE]) for row in rows if isinstance(row, dict) and row.get(INTERMEDIATE)]
    return [(step, score) for step, score in scored if step < trial.num_steps]


def swept_keys(trials: Sequence[Trial]) -> list[str]:
    """Every key that some trial changes, in the order of their first use."""
    return list(dict.fromkeys(key for trial in trials for key in trial.changes))


def _read_json(path: Path) -> Any:
    return _parsed(path.read_bytes()) if path.exists() else None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # a line that is being written
        return None


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
