"""Mistakes on the command line and in files: one line each, status 1, and nothing is left behind."""

import os
import shutil

import pytest
from programs import ROOT, TINY, assert_one_line, make_pairs, photograph, snapshot

from experiments.run.config import load_config
from sel.errors import UserError

# What is wrong with a configuration, and what the line must name.
CHANGES = {
    "--config.los.name=l1": ("config.los.name: there is no such key; did you mean loss?",),
    "--config.loss.nmae=l1": ("config.loss.nmae: there is no such key; did you mean loss.name?",),
    "--config.loss=l1": ("config.loss is a section with keys of its own, found 'l1'",),
    "--config.loss.name": ("Missing value for flag --config.loss.name",),
    "--config.=1": ("config.: there is no such key; there are batch_size",),
    "--config.loss.name=l3": ("config.loss.name must be", "spatial_entropy, l1, l2", "'l3'"),
    "--config.loss.divergence=foo": ("config.loss.divergence", "hellinger", "'foo'"),
    "--config.loss.windows=foo": ("config.loss.windows", "'foo'"),
    "--config.model.name=foo": ("config.model.name", "nafnet", "'foo'"),
    "--config.model.width=wide": ("--config.model.width=wide", "int"),
    "--config.diffusion.kind=foo": ("config.diffusion.kind", "cosine", "'foo'"),
    "--config.sampler.method=foo": ("config.sampler.method", "posterior", "'foo'"),
    "--config.sampler.clip_x0=(1,0)": ("config.sampler.clip_x0", "low < high"),
    "--config.sampler.num_steps=5000": ("config.sampler.num_steps must be at most the 2 steps", "5000"),
    "--config.optimizer.gamma=0.1": ("config.optimizer.gamma has no effect", "multistep, not by cosine"),
    "--config.num_steps=true": ("config.num_steps=true", "int"),
    "--config.num_steps=None": ("config.num_steps=None", "int"),
    "--config.compute.cpu_devices=-1": ("config.compute.cpu_devices", "at least 0", "-1"),
    "--config.data.name=foo": ("config.data.name", "pairs", "'foo'"),
    "--config.data.darkenings=0": ("config.data.darkenings", "at least 1"),
    "--config.data.validation_size=3": ("config.data.validation_size", "at least 11"),
    "--config.data.camera.cast=1": ("config.data.camera.cast has no effect", "photographs, not by samples"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_value_is_named(change):
    with pytest.raises(UserError) as caught:
        load_config(str(ROOT / "configs/quickstart.py"), [*TINY[1:], change])
    assert "\n" not in str(caught.value)
    for part in CHANGES[change]:
        assert part in str(caught.value)


# What the program adds to that.
OPTIONS = {
    "--config.num_steps=0": ("config.num_steps must be a whole number of at least 1, found 0",),
    "--config.data.validation_size=12": ("chelsea", "8 x 12", "at least 11 x 11"),
    "--config.data.crop_size=4000": ("too small for crops of 4000", "astronaut"),
    "--coordinator=nowhere:1": ("--coordinator has no effect without --distributed",),
    "--process_id=0": ("--process_id has no effect without --distributed",),
    "--wrkdir=x": ("wrkdir", "workdir"),
    "stray": ("stray", "--NAME=VALUE"),
    "--only_check_args=maybe": ("only_check_args=maybe",),
}


@pytest.mark.parametrize("change", OPTIONS)
def test_train_names_a_wrong_option(shell, tmp_path, change):
    result = shell("train", *TINY, f"--workdir={tmp_path / 'new'}", change)
    assert_one_line(result, *OPTIONS[change])
    assert list(tmp_path.iterdir()) == []


CONFIGS = {
    "no function": ("x = 3", "must define get_config()"),
    "no python": ("def get_config(:", "SyntaxError"),
    "binary": ("\0\0", "null bytes"),
    "returns nothing": ("def get_config(): pass", "returns an ml_collections.ConfigDict"),
    "returns a dict": ("def get_config(): return {}", "returns an ml_collections.ConfigDict"),
    "lacks an import": ("import nothing_of_that_name", "nothing_of_that_name"),
    "fails": ("def get_config(): return {}['key']", "KeyError: 'key'"),
    "empty": (
        "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict()",
        "config.data.root is empty",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_train_names_a_bad_configuration_file(shell, tmp_path, name):
    text, reason = CONFIGS[name]
    (tmp_path / "c.py").write_text(text)
    before = snapshot(tmp_path)
    result = shell("train", f"--config={tmp_path / 'c.py'}", f"--workdir={tmp_path / 'new'}")
    assert_one_line(result, reason, *([tmp_path / "c.py"] if name != "empty" else []))
    assert {path for path in snapshot(tmp_path) if "__pycache__" not in str(path)} == set(before)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config=configs/nothing.py"], ["configs/nothing.py", "no file"]),
        (["--config=configs"], ["--config=configs", "no file"]),
        (["--config=configs/lol_v1.py:huge"], ["configs/lol_v1.py:huge", "small or full", "'huge'"]),
        (["--config=configs/quickstart.py:small"], ["configs/quickstart.py:small"]),
        (["--config="], ["--config is required"]),
        ([], ["--config is required"]),
        (["--config=configs/lol_v1.py"], ["config.data.root", "our485"]),
    ],
)
def test_train_names_a_bad_choice_of_configuration(shell, tmp_path, arguments, parts):
    assert_one_line(shell("train", *arguments, f"--workdir={tmp_path / 'new'}"), *parts)
    assert list(tmp_path.iterdir()) == []


def test_train_names_a_bad_workdir(shell, tmp_path):
    assert_one_line(shell("train", *TINY), "--workdir is required")
    (tmp_path / "file").write_text("precious")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_one_line(shell("train", *TINY, f"--workdir={workdir}"), workdir)
    assert (tmp_path / "file").read_text() == "precious"


def spoil(root, name):
    """Break the folder of pairs at `root` in one way; return what the message must name."""
    low = root / "val" / "low"
    match name:
        case "no folder":
            shutil.rmtree(root)
            return [root / "our485", "no such folder"]
        case "no side":
            shutil.rmtree(low)
            return [root / "val", "missing low"]
        case "empty":
            shutil.rmtree(low)
            low.mkdir()
            return [low, "holds no image"]
        case "names":
            (low / "a.png").rename(low / "c.png")
            return [root / "val", "paired by name", "(c)", "(a)"]
        case "sizes":
            photograph(low / "a.png", size=(21, 24))
            return [root / "val", "a: low 21 x 24 and high 20 x 24"]
        case "text":
            (low / "a.png").write_text("no image")
            return [low / "a.png", "not an image"]
        case "cut":
            (low / "a.png").write_bytes((low / "b.png").read_bytes()[:500])
            return [low / "a.png", "damaged or incomplete"]
        case "small":
            make_pairs(root / "val", size=(9, 30))
            return ["image a of 9 x 30 pixels", "11 x 11"]
    raise AssertionError(name)


# What a set with a layout of its own says instead.
IN_A_SET = {
    "no folder": ["data: no such folder"],
    "no side": ["validation split of LOL v1", "no low-light images", "val/low and val/high"],
    "empty": ["validation split of LOL v1", "no low-light images", "val/low and val/high"],
    "names": ["data, validation split: images are paired by name", "(c)", "(a)"],
    "sizes": ["data, validation split", "a: low 21 x 24 and high 20 x 24"],
}
SPOILED = ["no folder", "no side", "empty", "names", "sizes", "text", "cut", "small"]


@pytest.mark.parametrize("name", SPOILED)
def test_train_names_bad_pairs(shell, tmp_path, name):
    for side in ("our485", "val"):
        make_pairs(tmp_path / "data" / side)
    parts = IN_A_SET.get(name, spoil(tmp_path / "data", name))
    before = snapshot(tmp_path)
    small = [change for change in TINY if "config=" not in change and "darkenings" not in change]
    small = [change for change in small if "validation_size" not in change]
    data = f"--config.data.root={tmp_path / 'data'}"
    options = [data, "--config.data.validation=validation", "--config.data.strict=True"]
    result = shell("train", "--config=configs/lol_v1.py:small", *small, *options, f"--workdir={tmp_path / 'new'}")
    assert_one_line(result, *parts)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", SPOILED[1:])
def test_evaluate_names_bad_pairs(shell, trained, tmp_path, name):
    make_pairs(tmp_path / "val")
    parts = spoil(tmp_path, name)
    before = snapshot(tmp_path)
    arguments = [f"--data={tmp_path / 'val'}", f"--output={tmp_path / 'new' / 'scores'}"]
    assert_one_line(shell("evaluate", f"--checkpoint={trained[0]}", *arguments), *parts)
    assert snapshot(tmp_path) == before


@pytest.fixture
def place(tmp_path, trained):
    """A folder with all that can be given in the wrong place."""
    photograph(tmp_path / "photo.png")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "there.png").write_text("precious")
    (tmp_path / "empty").mkdir()
    make_pairs(tmp_path / "pairs")
    photograph(tmp_path / "twins" / "a.png")
    photograph(tmp_path / "twins" / "a.bmp")
    damaged = shutil.copytree(trained[0], tmp_path / "damaged")
    for file in (damaged / "checkpoints" / "36" / "state").rglob("manifest.ocdbt"):
        file.unlink()
    (tmp_path / "model").symlink_to(trained[0])
    return tmp_path


# Arguments of enhance, relative to the folder above, and what the message must name.
ENHANCE = [
    ({"checkpoint": None}, ["--checkpoint is required"]),
    ({"input": None, "output": None}, ["--input is required", "--output is required"]),
    ({"checkpoint": "nothing"}, ["nothing", "no such folder"]),
    ({"checkpoint": "file"}, ["file", "a checkpoint is a folder"]),
    ({"checkpoint": "empty"}, ["empty", "no checkpoint"]),
    ({"checkpoint": "pairs"}, ["pairs", "no checkpoint"]),
    ({"checkpoint": "damaged"}, ["damaged/checkpoints/36", "damaged;"]),
    ({"input": "nothing.png"}, ["nothing.png", "no such file"]),
    ({"input": "empty", "output": "new"}, ["empty", "holds no image"]),
    ({"input": "file"}, ["file", "not an image"]),
    ({"input": "twins", "output": "file"}, ["file", "give a folder"]),
    ({"output": "new.gif"}, ["new.gif", ".png"]),
    ({"output": "photo.png"}, ["photo.png", "a photograph to be enhanced"]),
    ({"input": "*.jpeg", "output": "new"}, ["*.jpeg", "no file matches"]),
    ({"output": "there.png"}, ["there.png", "exists already", "--overwrite"]),
    ({"output": "file/new.png"}, ["file", "can't be made"]),
]


@pytest.mark.parametrize(("change", "parts"), ENHANCE, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_enhance_names_what_is_wrong(shell, place, change, parts):
    given = {"checkpoint": "model", "input": "photo.png", "output": "new.png"} | change
    before = snapshot(place)
    result = shell("enhance", *(f"--{name}={place / value}" for name, value in given.items() if value))
    assert_one_line(result, *parts)
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"data": None}, ["--data is required"]),
        ({"checkpoint": "empty"}, ["empty", "no checkpoint"]),
        ({"output": "file"}, ["file", "give the name of a folder"]),
        ({"output": "scores.json"}, ["scores.json", "give the name of a folder"]),
        ({"output": "file/scores"}, ["file", "can't be made"]),
    ],
    ids=str,
)
def test_evaluate_names_what_is_wrong(shell, place, change, parts):
    given = {"checkpoint": "model", "data": "pairs", "output": "scores"} | change
    before = snapshot(place)
    result = shell("evaluate", *(f"--{name}={place / value}" for name, value in given.items() if value))
    assert_one_line(result, *parts)
    assert snapshot(place) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_may_not_be_written_are_named(shell, place):
    (place / "empty").chmod(0o500)
    files = [f"--checkpoint={place / 'model'}", f"--input={place / 'photo.png'}"]
    assert_one_line(shell("enhance", *files, f"--output={place / 'empty' / 'new.png'}"), place / "empty")
    assert_one_line(shell("train", *TINY, f"--workdir={place / 'empty' / 'run'}"), place / "empty")
