"""What is said of a set of scores: means, gaps, the scenes that are shown."""

import importlib.util
import math

import numpy as np
import pytest
from PIL import Image

from sel.cli.tables import summary_table
from sel.errors import UserError
from sel.extras import install
from sel.files import write_text
from sel.scoring.pictures import error_picture, reduced, write_comparison
from sel.scoring.report import Gallery
from sel.scoring.scores import SCORES, possible_scores, row_file, score_image, summarize

PSNR, NIQE = SCORES[0], SCORES[-1]
IMAGE = np.zeros((4, 5, 3), np.uint8)


def row(image, seed, psnr, niqe):
    return {"image": image, "seed": seed, "psnr": psnr, "niqe": niqe}


def test_means_leave_out_what_is_not_defined_and_keep_what_is_infinite():
    rows = [row("a", 0, 20.0, 4.0), row("a", 7, 22.0, math.nan), row("b", 0, 30.0, 6.0), row("b", 7, math.inf, 7.0)]
    summary = summarize(rows)
    assert summary["psnr"]["mean"] == math.inf
    assert summary["psnr"]["of_seeds"] == {"0": 25.0, "7": math.inf}
    assert summary["psnr"]["std_over_seeds"] is None
    # Image a has no NIQE with one of the seeds: the other would be a mean over another set.
    assert summary["niqe"] == {
        "mean": 6.5,
        "std_over_seeds": pytest.approx(math.sqrt(0.5)),
        "std_over_images": None,
        "images": 1,
        "of_seeds": {"0": 6.0, "7": 7.0},
    }
    nothing = summarize([row("a", 0, 20.0, math.nan)])["niqe"]
    assert math.isnan(nothing.pop("mean"))
    assert nothing["images"] == 0
    table = summary_table((PSNR, NIQE), summarize([row("a", 0, 20.0, math.nan)]), "")
    assert list(table.columns[1].cells) == ["20.00", "-"]


def test_scores_that_are_not_possible_are_named(monkeypatch):
    shapes = [(100, 200, 3), (20, 30, 3)]
    scores, notes = possible_scores(shapes, reference=True)
    assert scores == SCORES
    assert notes == [
        "LPIPS (AlexNet) needs 31 x 31 pixels: 1 of 2 images are too small for it.",
        "NIQE needs 96 x 192 pixels: 1 of 2 images are too small for it.",
    ]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    scores, notes = possible_scores(shapes[:1], reference=True)
    assert [score.key for score in scores] == ["psnr", "ssim", "spatial_entropy", "niqe"]
    assert notes == [f"LPIPS is left out: its weights come with `{install('lpips')}`."]
    assert "lpips_alexnet" not in score_image(scores, np.zeros((31, 31, 3)), np.ones((31, 31, 3)))
    with pytest.raises(UserError, match="nothing can be scored: NIQE needs 96 x 192"):
        possible_scores([(192, 95, 3)], reference=False)


@pytest.mark.parametrize("score", [PSNR, NIQE])
def test_the_worst_and_the_best_are_shown(score):
    gallery = Gallery(score)
    values = np.random.default_rng(0).permutation(100).astype(float).tolist()
    for value in [*values, math.nan]:
        gallery.add(f"image {value}", float(value), IMAGE, IMAGE, None)
    order = sorted(values, reverse=not score.higher_is_better)
    assert [name for _, name, _ in gallery.shown] == [f"image {x}" for x in ["nan", *order[:11], *order[-12:]]]
    assert gallery.choice() == f"The 12 worst and the 12 best of 101 images by {score.label}, the worst first."
    assert (
        gallery.caption(gallery.shown[-1]) == f"image {order[-1]}: {score.label} {score.format(order[-1], score.unit)}"
    )


def test_error_is_black_then_red_then_yellow_then_white():
    levels = np.array([0, 43, 86, 128, 255], np.uint8)
    image = np.repeat(levels[None, :, None], 3, axis=2)
    colours = error_picture(image, np.zeros_like(image))[0] / 255
    ideal = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 1)]
    np.testing.assert_allclose(colours, ideal, atol=0.02)
    np.testing.assert_array_equal(
        error_picture(np.zeros_like(image), image), error_picture(image, np.zeros_like(image))
    )


def test_sheets_take_images_of_several_sizes_and_any_name(tmp_path):
    small, wide = np.zeros((3, 5, 3), np.uint8), np.zeros((2, 900, 3), np.uint8)
    assert reduced(wide, 360).shape == (1, 360, 3)
    write_comparison(tmp_path / "a.png", [(small, small), (wide, wide)], captions=["夜 \u202e \udcff", "x" * 500])
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (2 * 366 + 6, 2 * 24 + 3 + 1 + 3 * 6)


def test_files_take_names_that_are_no_unicode(tmp_path):
    with row_file(tmp_path / "a.csv") as write:
        write({"image": "\udcff,", "psnr": math.nan, "ssim": 0.5})
        assert (tmp_path / "a.csv").read_text() == 'image,psnr,ssim\n"\\udcff,",,0.5\n'
    write_text(tmp_path / "a.html", "\udcff")
    assert (tmp_path / "a.html").read_text() == "\\udcff"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.html"]
