"""The command line as people type it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from programs import ROOT, assert_one_line, make_pairs, photograph

from sel.cli.arguments import normalized
from sel.scoring.baselines import auto_levels, gamma


def test_dashes_in_names_become_underscores_and_values_stay(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = ["--max-megapixels=4", "--no-reference", "-self-ensemble", "a-b", "--x=a-b", "--config.data.root=~/a-b"]
    expected = [
        "--max_megapixels=4",
        "--no_reference",
        "-self_ensemble",
        "a-b",
        "--x=a-b",
        "--config.data.root=/home/me/a-b",
    ]
    assert normalized([*given, "--", "--y-z"], "--config.") == [*expected, "--", "--y-z"]


def test_a_home_is_found_and_dashes_work_in_a_program(shell, trained, tmp_path):
    """`~` in every path, an existing folder as the output of one photograph."""
    from os.path import expanduser, relpath

    photo = photograph(tmp_path / "a photo.png")
    (tmp_path / "out").mkdir()
    home = [f"--{n}=~/{relpath(p, expanduser('~'))}" for n, p in (("input", photo), ("output", tmp_path / "out"))]
    done = shell("enhance", f"--checkpoint=~/{relpath(trained[0], expanduser('~'))}", *home, "--max-megapixels=1")
    assert (done.code, done.err) == (0, "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a photo.png"]
    assert_one_line(
        shell("enhance", f"--checkpoint={trained[0]}", *home, "--resume", "--overwrite"), "--overwrite has no"
    )
    assert_one_line(shell("enhance", f"--checkpoint={trained[0]}", *home), "out/a photo.png exists already")


@pytest.mark.parametrize(
    ("program", "flag"),
    [
        ("train", "workdir"),
        ("enhance", "output"),
        ("evaluate", "data"),
        ("export", "output"),
        ("convert_torch", "output"),
        ("prepare_data", "output"),
        ("sweep", "workdir"),
    ],
)
def test_remote_folders_are_refused_in_one_line(shell, program, flag):
    result = shell(program, f"--{flag}=gs://bucket/run")
    assert_one_line(result, f"--{flag}=gs://bucket/run", "mounted")
    assert not (ROOT / "gs:").exists()


def test_flags_without_effect_are_refused(shell, trained, tmp_path):
    arguments = [f"--checkpoint={trained[0]}", f"--data={tmp_path}", f"--output={tmp_path / 'new'}"]
    result = shell("evaluate", *arguments, "--noreference", "--dataset=X", "--split=nonsense")
    assert_one_line(result, "--dataset and --split have no effect with --noreference")
    assert_one_line(shell("evaluate", *arguments, "--max_megapixels=9"), "--max_megapixels has no effect")
    converted = shell("convert_torch", "x.pth", f"--output={tmp_path / 'new'}", "--preset=low-light", "--max_sigma=9")
    assert converted.code == 1
    assert not (tmp_path / "new").exists()


def test_evaluate_keeps_images_and_shows_what_needs_no_learning(shell, trained, tmp_path):
    data = make_pairs(tmp_path / "data", ("a", "<b>"))
    arguments = [f"--checkpoint={trained[0]}", f"--data={data}", f"--output={tmp_path / 'out'}", "--save-images"]
    result = shell("evaluate", *arguments)
    assert (result.code, result.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out" / "enhanced").iterdir()) == ["_b__0.png", "a_0.png"]
    scores = json.loads((tmp_path / "out" / "summary.json").read_text())["scores"]
    low, high = (np.asarray(Image.open(data / side / "a.png"), np.float64) for side in ("low", "high"))
    enhanced = np.asarray(Image.open(tmp_path / "out" / "enhanced" / "a_0.png"), np.float64)
    rows = (tmp_path / "out" / "images.csv").read_text().splitlines()
    row = dict(zip(rows[0].split(","), next(line for line in rows if line.startswith("a,")).split(","), strict=True))
    for column, image in (("psnr", enhanced), ("psnr_gamma", np.rint(255 * (low / 255) ** 0.4))):
        assert float(row[column]) == pytest.approx(10 * np.log10(255**2 / np.mean((image - high) ** 2)), rel=1e-5)
    assert scores["psnr_levels"]["images"] == 2
    assert "gamma 0.4" in result.out
    assert_one_line(shell("evaluate", *arguments), "exists already")


def test_curves_that_need_no_learning():
    ramp = np.repeat(np.arange(60, dtype=np.uint8)[:, None, None], 3, axis=2)
    stretched = auto_levels(ramp)
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert (np.diff(stretched[:, 0, 0].astype(int)) >= 0).all()
    np.testing.assert_array_equal(auto_levels(np.full((4, 4, 3), 9, np.uint8)), 9)
    np.testing.assert_array_equal(gamma(np.array([[[0, 26, 255]]], np.uint8)), [[[0, 102, 255]]])


def test_the_command_lists_its_programs_and_their_flags(shell):
    listed, unknown = (
        subprocess.run([sys.executable, "-m", "sel.cli", name], cwd=ROOT, capture_output=True, text=True)
        for name in ("--help", "nothing")
    )
    assert listed.returncode == 0
    assert "sel enhance" in listed.stdout
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    flags = shell("train", "--help").out
    assert "--[no]distributed" in flags
    assert "--workdir" in flags
