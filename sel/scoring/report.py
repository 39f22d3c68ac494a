"""What an evaluation found, for people: a table for the terminal, a contact sheet, and an HTML page in one file."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from sel.files import write_text
from sel.images.resizing import reduced
from sel.scoring.baselines import BASELINES
from sel.scoring.pictures import LARGEST_ERROR, error_picture, write_comparison
from sel.scoring.scores import VARIANTS, Row, Score

# Pixels across a picture, and how many scenes of either end are shown.
_WIDTH, _SHOWN = 480, 12

_ERROR = (
    f"Error: mean over RGB of |enhanced - target|, black for none, over red and yellow to white for {LARGEST_ERROR} or "
    "more of 255 levels."
)
_GT_MEAN = (
    "GT-mean: the enhanced image multiplied by (mean grey of the target / its own mean grey) before it is scored. It "
    "knows the right brightness; don't compare it with scores without GT-mean."
)


@dataclass
class Gallery:
    """The scenes to show, reduced: all if there are few, otherwise the worst and the best."""

    by: Score
    shown: list[tuple[float, str, dict[str, np.ndarray]]] = field(default_factory=list)
    seen: int = 0

    def add(self, name: str, value: float, dark: np.ndarray, enhanced: np.ndarray, target: np.ndarray | None) -> None:
        """Offer one scene, scored `value`."""
        pictures = {"dark": dark, "enhanced": enhanced}
        if target is not None:
            pictures |= {"target": target, "error": error_picture(enhanced, target)}
        worth = math.nan if math.isnan(value) else value if self.by.higher_is_better else -value
        self.shown.append((worth, name, {side: reduced(image, _WIDTH) for side, image in pictures.items()}))
        self.shown.sort(key=lambda scene: (not math.isnan(scene[0]), scene[0], scene[1]))
        self.seen += 1
        if len(self.shown) > 2 * _SHOWN:
            del self.shown[_SHOWN]

    def choice(self) -> str:
        """What is shown, in words."""
        if self.seen > len(self.shown):
            return (
                f"The {_SHOWN} worst and the {_SHOWN} best of {self.seen} images by {self.by.label}, the worst first."
            )
        return f"All images, the worst {self.by.label} first." if self.seen > 1 else ""

    def caption(self, scene: tuple[float, str, Any]) -> str:
        """Name and score of a scene."""
        return f"{scene[1]}: {self.by.label} {self.by.format(abs(scene[0]), self.by.unit)}"


def counted(number: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def write_contact_sheet(path: Path, gallery: Gallery) -> None:
    """Dark | enhanced | target | error, a row for each scene of the gallery.

    Raises:
      UserError: if it can't be written.
    """
    headings = list(gallery.shown[0][2])
    if "error" in headings:
        headings[-1] = f"error, white at {LARGEST_ERROR} / 255"
    rows = [list(pictures.values()) for _, _, pictures in gallery.shown]
    write_comparison(path, rows, headings=headings, captions=[gallery.caption(scene) for scene in gallery.shown])


def spread(score: Score, suffix: str, summary: dict[str, dict[str, Any]]) -> str:
    """Mean, and standard deviation over seeds if there are several, on which the dark image does not depend."""
    value = summary[score.key + suffix]
    deviation = None if suffix in ("_dark", *BASELINES) else value["std_over_seeds"]
    return score.format(value["mean"]) + ("" if deviation is None else f" ± {deviation:.{score.digits}f}")


def variants_of(scores: Sequence[Score], row: Row) -> list[str]:
    """Suffixes of the scores that there are."""
    return [suffix for suffix in VARIANTS if scores[0].key + suffix in row]


def write_report(
    path: Path,
    *,
    title: str,
    settings: dict[str, Any],
    notes: Sequence[str],
    scores: Sequence[Score],
    summary: dict[str, dict[str, Any]],
    rows: Sequence[Row],
    gallery: Gallery,
) -> None:
    """Write one HTML file with its pictures inside; it needs no network.

    Raises:
      UserError: if it can't be written.
    """
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    images = len(rows) // len(seeds)
    several = len(seeds) > 1
    reference = any(score.needs_reference for score in scores)
    explanation = [
        f"Means over {counted(images, 'image')}"
        + (f"; ± is the standard deviation over {len(seeds)} seeds." if several else "."),
        "▲ higher is better, ▼ lower is better.",
        *([_GT_MEAN] if reference else []),
    ]
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(title),
        subtitle=f"{counted(images, 'image')}, seed{'s' if several else ''} {', '.join(map(str, seeds))}.",
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        scores=_score_table(scores, summary),
        explanation=escape(" ".join(explanation)),
        choice=escape(gallery.choice()),
        error=escape(_ERROR) if reference else "",
        pictures="".join(_figure(gallery, scene) for scene in gallery.shown),
        images=_image_table(scores, rows),
        settings="".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in settings.items()),
    )
    write_text(path, page)


def _score_table(scores: Sequence[Score], summary: dict[str, dict[str, Any]]) -> str:
    variants = variants_of(scores, summary)
    head = "".join(f'<th scope="col">{escape(VARIANTS[suffix])}</th>' for suffix in variants)
    lines = []
    for score in scores:
        values = [escape(spread(score, suffix, summary)).partition(" ± ") for suffix in variants]
        cells = "".join(f"<td>{mean}{f' <small>± {more}</small>' if more else ''}</td>" for mean, _, more in values)
        lines.append(f'<tr><th scope="row">{escape(score.heading)}</th>{cells}</tr>')
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _image_table(scores: Sequence[Score], rows: Sequence[Row]) -> str:
    columns = [
        (score, score.key + suffix, f"{score.label}{', GT-mean' if suffix else ''}")
        for suffix in ("", "_gt_mean")
        for score in scores
        if score.key + suffix in rows[0]
    ]
    head = "".join(f'<th scope="col"><button>{escape(label)}</button></th>' for _, _, label in columns)
    lines = []
    for name in dict.fromkeys(row["image"] for row in rows):
        own = [row for row in rows if row["image"] == name]
        line = [f'<td title="{escape(name)}" data-value="{escape(name)}">{escape(name)}</td>']
        for score, key, _ in columns:
            value = float(np.mean([row[key] for row in own]))
            number = "" if math.isnan(value) else "Infinity" if math.isinf(value) else repr(value)
            line.append(f'<td data-value="{number}">{score.format(value)}</td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    head = f'<th scope="col"><button>image</button></th>{head}'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _figure(gallery: Gallery, scene: tuple[float, str, dict[str, np.ndarray]]) -> str:
    pictures = {side: _data_uri(image) for side, image in scene[2].items()}
    others = [side for side in pictures if side != "enhanced"]
    caption = escape(gallery.caption(scene))
    buttons = "".join(
        f'<button data-show="{side}" data-src="{"" if side == "dark" else pictures[side]}" '
        f'aria-pressed="{"true" if side == "dark" else "false"}">{side}</button>'
        for side in others
    )
    height, width, _ = scene[2]["dark"].shape
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="stage">'
        f'<img {size} src="{pictures["enhanced"]}" alt="enhanced">'
        f'<img {size} src="{pictures["dark"]}" alt="dark" class="over"></div>'
        '<input type="range" min="0" max="100" value="50" aria-label="how much of the other picture is seen">'
        f'<div class="choices">{buttons}</div></figure>'
    )


def _data_uri(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
