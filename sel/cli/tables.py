"""Tables of scores for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from sel.scoring.baselines import BASELINES
from sel.scoring.report import spread, variants_of
from sel.scoring.scores import VARIANTS, Score


def score_table(rows: list[dict[str, Any]], title: str) -> Table:
    """PSNR and SSIM of the dark input and of the result, for each image and in the mean."""
    table = Table(title=title)
    table.add_column("image")
    for column in ("PSNR dark", "PSNR enhanced", "SSIM dark", "SSIM enhanced"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['psnr_dark']:.2f} dB",
            f"{row['psnr']:.2f} dB",
            f"{row['ssim_dark']:.3f}",
            f"{row['ssim']:.3f}",
            style="bold" if row["name"] == "mean" else None,
        )
    return table


def summary_table(scores: Sequence[Score], summary: dict[str, dict[str, Any]], title: str) -> Table:
    """The means for the terminal."""
    table = Table(title=title)
    variants = [suffix for suffix in variants_of(scores, summary) if suffix not in BASELINES]
    for heading in ("", *(VARIANTS[suffix] for suffix in variants)):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for score in scores:
        table.add_row(score.heading, *(spread(score, suffix, summary) for suffix in variants))
    return table


def unlearned_lines(scores: Sequence[Score], summary: dict[str, dict[str, Any]]) -> list[str]:
    """The means of what needs no learning, a line for each curve."""
    return [
        f"Without learning, {VARIANTS[suffix]}: "
        + ", ".join(f"{score.label} {spread(score, suffix, summary)}" for score in scores)
        for suffix in BASELINES
    ]
