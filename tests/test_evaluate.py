"""`evaluate` as people run it: what it measures, what it leaves, what it says."""

import base64
import csv
import io
import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image
from programs import assert_one_line, make_pairs, photograph, snapshot

FILES = ["contact_sheet.png", "images.csv", "report.html", "summary.json"]


def table(folder):
    with (folder / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def evaluated(shell, trained, tmp_path_factory):
    """Four pairs, two seeds: a plain one, one whose dark image is the reference, a hostile name, one for LPIPS."""
    root = tmp_path_factory.mktemp("evaluated")
    data = make_pairs(root / "data", ("a", "b", "<script>alert('1')<b>&\""))
    shutil.copy(data / "low" / "b.png", data / "high" / "b.png")
    for seed, side in enumerate(("low", "high")):
        photograph(data / side / "large.png", seed, (33, 36))
    arguments = [f"--checkpoint={trained[0]}", f"--data={data}", "--seeds=0,5"]
    return root, arguments, shell("evaluate", *arguments, f"--output={root / 'new' / 'out'}")


def test_every_pair_is_scored_with_every_seed(evaluated):
    root, _, result = evaluated
    assert (result.code, result.err) == (0, "")
    assert sorted(path.name for path in (root / "new" / "out").iterdir()) == FILES
    rows = table(root / "new" / "out")
    assert [(row["image"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("<script>alert('1')<b>&\"", "a", "b", "large") for seed in "05"
    ]
    low, high = (np.asarray(Image.open(root / "data" / side / "a.png"), np.float64) for side in ("low", "high"))
    decibels = 10 * np.log10(255**2 / np.mean((low - high) ** 2))
    assert float(rows[2]["psnr_dark"]) == float(rows[3]["psnr_dark"]) == pytest.approx(decibels, rel=1e-5)
    # The sampler's noise is the seed's, and decides.
    assert rows[2]["psnr"] != rows[3]["psnr"]
    assert rows[2]["ssim_gt_mean"] != rows[2]["ssim"]
    # Identical images: nothing is infinite but the PSNR.
    dark = {name: float(value or "nan") for name, value in rows[4].items() if name.endswith("_dark")}
    assert dark.pop("psnr_dark") == np.inf
    assert dark.pop("ssim_dark") == pytest.approx(1, abs=1e-6)
    assert dark.pop("spatial_entropy_dark") == pytest.approx(0, abs=1e-6)
    assert np.isnan(dark.pop("lpips_alexnet_dark"))
    assert not dark
    assert 0 < float(rows[6]["lpips_alexnet"]) < 2


def test_the_summary_is_the_mean_over_images_and_the_spread_over_seeds(evaluated):
    root, arguments, result = evaluated
    summary = json.loads((root / "new" / "out" / "summary.json").read_text())
    rows = table(root / "new" / "out")
    of_seeds = [np.mean([float(row["ssim"]) for row in rows if row["seed"] == seed]) for seed in "05"]
    scores = summary["scores"]["ssim"]
    assert scores["mean"] == pytest.approx(np.mean(of_seeds))
    assert scores["std_over_seeds"] == pytest.approx(abs(of_seeds[0] - of_seeds[1]) / np.sqrt(2))
    assert scores["of_seeds"] == pytest.approx({"0": of_seeds[0], "5": of_seeds[1]})
    assert scores["images"] == 4
    means = [np.mean([float(row["ssim"]) for row in rows[i : i + 2]]) for i in range(0, 8, 2)]
    assert scores["std_over_images"] == pytest.approx(np.std(means, ddof=1))
    # JSON knows neither infinity nor what is not a number.
    assert summary["scores"]["psnr_dark"]["mean"] is None
    assert summary["scores"]["lpips_alexnet"]["images"] == 1
    assert summary["seeds"] == [0, 5]
    assert summary["metrics"]["lpips_alexnet"] == {"label": "LPIPS (AlexNet)", "higher_is_better": False}
    assert summary["settings"]["step"] == 36
    assert summary["settings"]["checkpoint"] in arguments[0] + "/checkpoints/36"
    assert "niqe" not in summary["metrics"]
    assert "NIQE needs 96 x 192 pixels: 4 of 4 images are too small for it." in summary["notes"]
    assert f"{scores['mean']:.4f} ± {scores['std_over_seeds']:.4f}" in result.out
    assert "GT-mean" in result.out


def test_the_report_is_one_file_that_runs_nothing_of_a_name(evaluated):
    page = (evaluated[0] / "new" / "out" / "report.html").read_text()
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;b&gt;&amp;&quot;" in page
    assert not re.findall(r"(?:src|href)=[\"'](?!data:image/jpeg;base64,)[^\"']", page)
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    sizes = [Image.open(io.BytesIO(base64.b64decode(text))).size for text in pictures]
    # Dark, enhanced, target and error of each scene.
    assert sorted(sizes) == [(24, 20)] * 12 + [(36, 33)] * 4
    assert "the worst PSNR first" in page
    assert "don&#x27;t compare it with scores without GT-mean" in page
    for line in table(evaluated[0] / "new" / "out")[2:4]:
        assert line["image"] in page


def test_the_contact_sheet_shows_what_it_says(evaluated):
    root = evaluated[0]
    sheet = np.asarray(Image.open(root / "new" / "out" / "contact_sheet.png")).astype(int)
    # Headings and captions of 24 pixels; three rows of 20 and one of 33 with 6 above; 6 below and at the right.
    assert sheet.shape == (24 + 3 * (24 + 26) + (24 + 39) + 6, 4 * (36 + 6) + 6, 3)
    for side in ("low", "high"):
        image = np.asarray(Image.open(root / "data" / side / "large.png")).astype(int)
        x = 6 if side == "low" else 6 + 2 * 42
        places = [y for y in range(sheet.shape[0] - 33) if (sheet[y : y + 33, x : x + 36] == image).all()]
        assert len(places) == 1
    enhanced = sheet[places[0] : places[0] + 33, 48 : 48 + 36]
    error = sheet[places[0] : places[0] + 33, 132 : 132 + 36]
    levels = np.abs(enhanced - image).mean(-1)
    np.testing.assert_allclose(error[..., 0], np.clip(3 * levels / 128, 0, 1) * 255, atol=0.51)
    np.testing.assert_allclose(error[..., 2], np.clip(3 * levels / 128 - 2, 0, 1) * 255, atol=0.51)


def test_the_same_command_repeats_its_scores_and_replaces_them_only_when_told(shell, evaluated):
    root, arguments, _ = evaluated
    output = root / "new" / "out"
    before = snapshot(output)
    assert_one_line(shell("evaluate", *arguments, f"--output={output}"), output, "exists already", "--overwrite")
    assert snapshot(output) == before
    assert shell("evaluate", *arguments, f"--output={output}", "--overwrite").code == 0
    after = snapshot(output)
    for name in ("images.csv", "contact_sheet.png"):
        assert after[output / name] == before[output / name]


def test_photographs_without_references(shell, trained, tmp_path):
    for seed in (0, 1):
        photograph(tmp_path / "in" / f"{seed}.jpg", seed, (100, 200))
    photograph(tmp_path / "in" / "small.png", 2)
    arguments = [f"--checkpoint={trained[0]}", f"--data={tmp_path / 'in'}", f"--output={tmp_path / 'out'}"]
    assert_one_line(shell("evaluate", *arguments), tmp_path / "in", "missing low and high", "--noreference")
    assert not (tmp_path / "out").exists()
    result = shell("evaluate", *arguments, "--noreference")
    assert (result.code, result.err) == (0, "")
    assert "1 of 3 images are too small" in result.out
    assert "GT-mean" not in result.out
    rows = table(tmp_path / "out")
    assert list(rows[0]) == ["image", "seed", "niqe", "niqe_dark", "niqe_gamma", "niqe_levels"]
    assert [bool(row["niqe"]) for row in rows] == [True, True, False]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["scores"]
    assert summary["niqe"]["images"] == 2
    assert summary["niqe"]["mean"] == pytest.approx(np.mean([float(row["niqe"]) for row in rows[:2]]))
    assert summary["niqe"]["std_over_seeds"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "GT-mean" not in page
    shutil.rmtree(tmp_path / "out")
    for seed in (0, 1):
        (tmp_path / "in" / f"{seed}.jpg").unlink()
    assert_one_line(shell("evaluate", *arguments, "--noreference"), "nothing can be scored", "96 x 192")


def test_what_is_known_outlives_an_interruption_and_a_file_that_cant_be_written(shell, trained, tmp_path):
    output = tmp_path / "out"
    arguments = [f"--checkpoint={trained[0]}", f"--data={make_pairs(tmp_path / 'in')}", f"--output={output}"]
    process = shell.start("evaluate", *arguments, f"--seeds={','.join(map(str, range(5000)))}")
    partial = output / "images.partial.csv"
    while not (partial.exists() and len(partial.read_text().splitlines()) > 3) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    (count,) = re.fullmatch(rf"error: interrupted; {partial} holds the (\d+) of 10000 scores so far\n", error).groups()
    assert [path.name for path in output.iterdir()] == ["images.partial.csv"]
    rows = list(csv.DictReader(partial.open(newline="")))
    assert len(rows) == int(count) >= 3
    assert all(float(row["psnr_gt_mean"]) for row in rows)
    assert_one_line(shell("evaluate", *arguments), partial, "exists already", "--overwrite")
    (output / "report.html").mkdir()
    (output / "report.html" / "something").touch()
    assert_one_line(shell("evaluate", *arguments, "--overwrite"), output / "report.html", "can't be written")
    assert [row["image"] for row in csv.DictReader(partial.open(newline=""))] == ["a", "b"]
    partial.unlink()
    partial.mkdir()
    assert_one_line(shell("evaluate", *arguments, "--overwrite"), partial, "can't be written")


@pytest.mark.parametrize("seeds", ["", "1,1", "-1", "x", "1.5", "4294967296"])
def test_seeds_that_are_none(shell, trained, tmp_path, seeds):
    arguments = [f"--checkpoint={trained[0]}", f"--data={make_pairs(tmp_path / 'in')}", f"--output={tmp_path / 'out'}"]
    assert_one_line(shell("evaluate", *arguments, f"--seeds={seeds}"), f"--seeds={seeds}", "0,1,2")
    assert not (tmp_path / "out").exists()
