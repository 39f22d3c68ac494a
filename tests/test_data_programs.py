"""Data as the programs use it: cached, split by scene, made from photographs; images seen in training are named."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from programs import TINY_L1, assert_one_line
from test_data_scenes import scene

from sel.data import Pair
from sel.training.images_seen import RECORD, read_record, write_record

LEFT_OUT = ("config=", "darkenings", "validation_size")
SMALL = [change for change in TINY_L1 if not any(word in change for word in LEFT_OUT)]
PAIRS = ["--config=configs/default.py", *SMALL, "--config.num_steps=2"]


def save(path, image, quality=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if quality:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
        image = np.asarray(Image.open(file))
    Image.fromarray(image).save(path)


def make_scenes(root, seeds, copies=1):
    for seed in seeds:
        for copy in range(copies):
            image = np.uint8(scene(seed, size=(40, 48)) * (1 - 0.1 * copy))
            save(root / "high" / f"{seed}-{copy}.png", image)
            save(root / "low" / f"{seed}-{copy}.png", image // 8)


@pytest.fixture(scope="module")
def run(shell, tmp_path_factory):
    """A run on 8 scenes of 2 photographs each, a quarter of them held out."""
    folder = tmp_path_factory.mktemp("seen")
    make_scenes(folder / "data" / "our485", range(8), copies=2)
    options = [f"--config.data.root={folder / 'data'}", "--config.data.validation=0.25"]
    result = shell("train", *PAIRS, *options, f"--workdir={folder / 'run'}", f"--config.data.cache_dir={folder / 'a'}")
    return folder, options, result


def test_a_fraction_holds_out_whole_scenes(run):
    folder, _, result = run
    assert (result.code, result.err) == (0, "")
    assert "12 training and 4 validation pairs" in result.out
    assert "Warning" not in result.out
    held = {row["name"] for row in json.loads((folder / "run" / "validation.json").read_text())} - {"mean"}
    trained = set(json.loads((folder / "run" / "training_images.json").read_text()))
    assert len(held) == 4
    assert len(trained) == 12
    assert not {name[0] for name in held} & {name[0] for name in trained}
    assert len(list((folder / "a").iterdir())) == 32


def test_a_run_goes_on_with_another_cache_and_seed_of_the_split_is_fixed(shell, run):
    folder, options, _ = run
    result = shell("train", *PAIRS, *options, f"--workdir={folder / 'run'}", f"--config.data.cache_dir={folder / 'b'}")
    assert (result.code, result.err) == (0, "")
    other = shell("train", *PAIRS, *options, "--config.seed=5", f"--workdir={folder / 'other'}")
    assert (other.code, other.err) == (0, "")
    records = [json.loads((folder / name / "training_images.json").read_text()) for name in ("run", "other")]
    assert records[0] == records[1]


def test_scenes_on_both_sides_are_named(shell, tmp_path):
    make_scenes(tmp_path / "our485", range(4))
    make_scenes(tmp_path / "val", (3, 9), copies=2)
    result = shell("train", *PAIRS, f"--config.data.root={tmp_path}", f"--workdir={tmp_path / 'run'}")
    assert (result.code, result.err) == (0, "")
    assert "Warning: 2 of 4 validation images look like a training image" in result.out
    assert "3-0 (3-0), 3-1 (3-0)" in result.out


def test_evaluate_names_images_that_were_trained_on(shell, run, tmp_path):
    """Other names, other files: a set with some of the training images, compressed and stored anew."""
    folder, _, _ = run
    trained = sorted(json.loads((folder / "run" / "training_images.json").read_text()))
    for i, name in enumerate([*trained[:2], "new"]):
        image = scene(50, size=(40, 48)) if name == "new" else read(folder / "data" / "our485" / "high" / f"{name}.png")
        number = f"{700 + i:05d}.png"
        save(tmp_path / "Real_captured" / "Test" / "Normal" / f"normal{number}", image, quality=97)
        save(tmp_path / "Real_captured" / "Test" / "Low" / f"low{number}", image // 8)
    arguments = [f"--data={tmp_path}", "--dataset=lol_v2_real", f"--output={tmp_path / 'scores'}"]
    newest = folder / "run" / "checkpoints" / "2"
    result = shell("evaluate", f"--checkpoint={newest}", *arguments)
    assert (result.code, result.err) == (0, "")
    assert "Warning: 2 of 3 images were training images of this checkpoint" in result.out
    seen = json.loads((tmp_path / "scores" / "summary.json").read_text())["seen_in_training"]
    assert list(seen.values()) == trained[:2]
    assert [int(name) for name in seen] == [700, 701]


def test_a_run_remembers_what_it_began_with_even_when_that_is_gone(run, tmp_path):
    folder, _, _ = run
    image = scene(60, size=(40, 48))
    origin, tuned = tmp_path / "origin", tmp_path / "tuned"
    shutil.copytree(folder / "run", origin)
    (tuned / "checkpoints" / "0").mkdir(parents=True)
    write_record(tuned, [Pair("own", image, image)], str(origin))
    names = [*(f"{name} (of {origin})" for name in json.loads((origin / RECORD).read_text())), "own"]
    assert list(read_record(str(tuned))) == names
    shutil.rmtree(origin)
    (tuned / "checkpoints" / "5").mkdir()
    write_record(tuned, [Pair("own", image, image)], str(origin))
    assert list(read_record(str(tuned))) == names


def read(path):
    return np.asarray(Image.open(path))


def test_a_folder_of_photographs_is_training_data(shell, tmp_path):
    for seed in range(6):
        save(tmp_path / "photos" / f"{seed}.png", scene(seed, size=(40, 48)))
    (tmp_path / "photos" / "broken.png").write_text("no image")
    photos = ["--config=configs/synthetic.py", *SMALL, "--config.num_steps=2", "--config.data.darkenings=2"]
    photos += [f"--config.data.root={tmp_path / 'photos'}", "--config.data.validation=0.34"]
    result = shell("train", *photos, f"--workdir={tmp_path / 'run'}", f"--config.data.cache_dir={tmp_path / 'cache'}")
    assert (result.code, result.err) == (0, "")
    assert "8 training and 2 validation pairs" in result.out
    assert "broken.png" in result.out
    result = shell("train", *photos, "--config.data.camera.exposure=(0.5,0.1)", f"--workdir={tmp_path / 'run2'}")
    assert_one_line(result, "config.data.camera.exposure must be (least, greatest)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--config.data.validation=1.5", ["config.data.validation", "fraction between 0 and 1", "1.5"]),
        ("--config.data.cache_gib=1e-9", ["decoded images take", "config.data.cache_gib"]),
        ("--config.data.cache_dir=/dev/null/here", ["/dev/null/here", "config.data.cache_dir"]),
    ],
)
def test_wrong_values_are_named(shell, run, tmp_path, change, words):
    folder, options, _ = run
    options = [*options, f"--config.data.cache_dir={folder / 'c'}", f"--workdir={tmp_path / 'new'}"]
    assert_one_line(shell("train", *PAIRS, *options, change), *words)
    assert list(tmp_path.iterdir()) == []
