"""What a sweep found: a table, the best configuration, a plot."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.sweeps.trials import FINAL, Trial, read_outcome, read_scores, swept_keys
from sel.extras import needs
from sel.files import write_text, write_whole

Row = dict[str, Any]

# A plot has at most so many lines in a panel, and values with a tick and a mean.
_LINES, _TICKS = 6, 12

_SCORES = ("psnr", "ssim", "psnr_dark", "ssim_dark")


def results(trials: Sequence[Trial]) -> list[Row]:
    """One row for each trial, the best first, those without a score last."""
    rows = []
    for trial in trials:
        outcome, scores = read_outcome(trial), read_scores(trial)
        row: Row = {"trial": trial.name, "state": outcome.state, "attempts": outcome.attempts}
        row |= {key: trial.changes.get(key) for key in swept_keys(trials)}
        row |= {name: scores.get(name) for name in _SCORES} | {"seconds": outcome.seconds, "error": outcome.error}
        rows.append(row)
    return sorted(rows, key=lambda row: -math.inf if row[FINAL] is None else row[FINAL], reverse=True)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows, whole or not at all."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    write_text(path, file.getvalue())


def result_table(rows: Sequence[Row], keys: Sequence[str], title: str) -> Table:
    """The rows for the terminal: the swept keys, the scores, and what went wrong."""
    table = Table(title=title)
    table.add_column("trial", no_wrap=True)
    for key in keys:
        table.add_column(key, overflow="fold")
    for column in ("PSNR", "SSIM"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in rows:
        scores = [
            "" if row[name] is None else f"{row[name]:{form}}" for name, form in (("psnr", ".2f"), ("ssim", ".3f"))
        ]
        note = "" if row["state"] == "finished" else f"{row['state']}: {row['error']}".removesuffix(": ")
        changes = ["" if row[key] is None else str(row[key]) for key in keys]
        table.add_row(row["trial"].partition("-")[0], *changes, *scores, note)
    return table


def write_plot(path: Path, rows: Sequence[Row], keys: Sequence[str]) -> None:
    """PSNR over each swept key, a dot for each trial and a line through the means; over both of two in one panel.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    with needs("plot"):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

    scored = [row for row in rows if row[FINAL] is not None and math.isfinite(row[FINAL])]
    # Several seeds of one setting are repetitions, not a question.
    shown = [key for key in keys if key != "seed" or len(keys) == 1]
    ranked = sorted(shown, key=lambda key: (_is_numeric(scored, key), len(_values(scored, key))))
    pair = len(shown) == 2 and len(_values(scored, ranked[0])) <= _LINES
    panels = ranked[1:] if pair else shown
    figure, axes = pyplot.subplots(1, len(panels), figsize=(1 + 4.5 * len(panels), 4), squeeze=False, sharey=True)
    for axis, key in zip(axes[0], panels, strict=True):
        other = next((name for name in shown if name != key), None) if pair else None
        for value in _values(scored, other) if other else [None]:
            _draw(axis, [row for row in scored if other is None or row[other] == value], scored, key, value)
        axis.set_xlabel(key)
        if other:
            axis.legend(title=other, fontsize="small")
    axes[0][0].set_ylabel("validation PSNR in dB")
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    pyplot.close(figure)
    write_whole(path, picture.getvalue())


def _draw(axis: Any, rows: Sequence[Row], scored: Sequence[Row], key: str, label: Any) -> None:
    values = _values(scored, key)
    numeric = _is_numeric(scored, key)
    places = {json.dumps(value): value if numeric else place for place, value in enumerate(values)}
    (dots,) = axis.plot([places[json.dumps(row[key])] for row in rows], [row[FINAL] for row in rows], "o", alpha=0.5)
    means = []
    for value in values if len(values) <= _TICKS else []:
        scores = [row[FINAL] for row in rows if row[key] == value]
        if scores:
            means.append((places[json.dumps(value)], sum(scores) / len(scores)))
    axis.plot([x for x, _ in means], [y for _, y in means], "-", color=dots.get_color(), label=_label(label))
    if numeric and min(values) > 0 and max(values) > 20 * min(values):
        axis.set_xscale("log")
    elif len(values) <= _TICKS:
        axis.set_xticks([places[json.dumps(value)] for value in values], [_label(value) for value in values])


def _values(rows: Sequence[Row], key: str) -> list[Any]:
    """Distinct values in order: numbers by size, others by first use in the sweep."""
    ordered = sorted(rows, key=lambda row: row["trial"])
    values = [json.loads(text) for text in dict.fromkeys(json.dumps(row[key]) for row in ordered)]
    return sorted(values) if _is_numeric(rows, key) else values


def _is_numeric(rows: Sequence[Row], key: str) -> bool:
    return all(isinstance(row[key], (int, float)) and not isinstance(row[key], bool) for row in rows)


def _label(value: Any) -> str:
    return "as configured" if value is None else str(value)
