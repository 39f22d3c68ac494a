"""`prepare_data` as people run it, and what training and evaluation make of its output."""

import json

import pytest
from downloads import LAYOUTS, build, hostile, zipped
from programs import TINY_L1, assert_one_line, photograph, snapshot


def test_a_download_becomes_a_set_that_trains_and_evaluates(shell, tmp_path, trained):
    names = {str(i): (f"our485/low/{i}.png", f"our485/high/{i}.png") for i in range(3)}
    held_out = {str(i): (f"{place}/low/{i}.png", f"{place}/high/{i}.png") for i, place in ((7, "val"), (8, "eval15"))}
    for i, path in enumerate(path for pair in (*names.values(), *held_out.values()) for path in pair):
        photograph(tmp_path / "x" / path, i, (20, 24))
    archive = zipped(tmp_path / "x", tmp_path / "LOLdataset.zip", "LOLdataset/")
    result = shell("prepare_data", "--dataset=lol_v1", f"--source={archive}", f"--output={tmp_path}/data")
    assert (result.code, result.err) == (0, ""), result
    for words in (
        "train      │     3 │             0 │ 20 x 24: 3",
        "test       │     1",
        f"{tmp_path}/data/lol_v1/1.0.0",
    ):
        assert words in result.out
    assert "Left out" not in result.out
    assert "ownloading" not in result.out
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["lol_v1"]

    scores = {}
    for route, data in (("folder", tmp_path / "x"), ("zip", archive), ("prepared", tmp_path / "data")):
        output = tmp_path / f"{route} scores"
        result = shell(
            "evaluate", f"--checkpoint={trained[0]}", "--dataset=lol_v1", f"--data={data}", f"--output={output}"
        )
        assert result.code == 0, result
        scores[route] = (output / "images.csv").read_text()
    assert scores["folder"] == scores["zip"] == scores["prepared"]
    assert [line.split(",")[0] for line in scores["prepared"].splitlines()] == ["image", "8"]

    losses = {}
    for route, data in (("folder", tmp_path / "x"), ("prepared", tmp_path / "data")):
        short = [
            x
            for x in TINY_L1
            if "num_steps=36" not in x and "config=" not in x and "data.d" not in x and "data.v" not in x
        ]
        run = [
            f"--config.data.root={data}",
            "--config.data.validation=validation",
            f"--config.data.cache_dir={tmp_path}/cache",
            f"--workdir={tmp_path}/{route}",
        ]
        result = shell("train", "--config=configs/lol_v1.py", *short, "--config.num_steps=4", *run)
        assert result.code == 0, result
        assert "3 training and 1 validation pairs" in result.out
        losses[route] = [json.loads(line)["loss"] for line in (tmp_path / route / "metrics.jsonl").open()]
    assert losses["folder"] == losses["prepared"]


def test_bad_images_are_counted_and_listed_and_strict_stops(shell, tmp_path):
    build(tmp_path / "x", LAYOUTS["lol_v1"])
    bad = tmp_path / "x" / "our485" / "low" / "2.png"
    bad.write_bytes(b"no picture")
    arguments = ["--dataset=lol_v1", f"--source={tmp_path}/x", f"--output={tmp_path}/data"]
    assert_one_line(shell("prepare_data", *arguments, "--strict"), bad, "not an image")
    assert not list((tmp_path / "data").iterdir())
    result = shell("prepare_data", *arguments)
    assert result.code == 0, result
    assert f"Left out, 1 in all:\n  {bad}: not an image" in result.out


def test_hostile_archives(shell, tmp_path):
    (tmp_path / "inner").mkdir()
    archive = hostile(tmp_path / "inner" / "a.zip")
    before = snapshot(tmp_path)
    arguments = ["--dataset=lol_v1", f"--source={archive}", f"--output={tmp_path}/inner/data"]
    assert_one_line(shell("prepare_data", *arguments, "--strict"), "../../our485/low/x.png", "outside the archive")
    result = shell("prepare_data", *arguments)
    assert result.code == 0, result
    assert "Left out, 7 in all" in result.out
    data = tmp_path / "inner" / "data"
    assert {path: x for path, x in snapshot(tmp_path).items() if data not in (path, *path.parents)} == before


def test_what_is_there_is_replaced_only_when_told(shell, tmp_path):
    build(tmp_path / "x", LAYOUTS["lol_v1"])
    arguments = ["--dataset=lol_v1", f"--source={tmp_path}/x", f"--output={tmp_path}/data"]
    assert shell("prepare_data", *arguments).code == 0
    before = snapshot(tmp_path / "data")
    assert_one_line(shell("prepare_data", *arguments), "lol_v1 exists already", "--overwrite")
    bad = ["--dataset=lol_v1", f"--source={tmp_path}/data", f"--output={tmp_path}/data", "--overwrite"]
    assert_one_line(shell("prepare_data", *bad), "no train split of LOL v1, which is our485/low")
    assert snapshot(tmp_path / "data") == before
    (tmp_path / "x" / "our485" / "low" / "2.png").unlink()
    (tmp_path / "x" / "our485" / "high" / "2.png").unlink()
    result = shell("prepare_data", *arguments, "--overwrite")
    assert result.code == 0, result
    assert json.loads((tmp_path / "data" / "lol_v1" / "1.0.0" / "metadata.json").read_text())["train"] == ["10"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["lol_v1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source=x"], "--dataset"),
        (["--dataset=lol"], "lol_v2_real"),
        (["--dataset=lol_v1"], "--source is required"),
        (["--dataset=lol_v1", "--source=/nowhere/at/all"], "--source=/nowhere/at/all: no such file or folder"),
        (["--dataset=lol_v1", "--source=README.md"], "README.md: no zip archive"),
        (["--dataset=lol_v1", "--source=tests", "--output=README.md/x"], "README.md"),
    ],
)
def test_mistakes_are_answered_in_one_line(shell, tmp_path, arguments, words):
    output = [] if any("--output" in argument for argument in arguments) else [f"--output={tmp_path}/data"]
    assert_one_line(shell("prepare_data", *arguments, *output), words)
