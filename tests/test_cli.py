"""The programs as a user runs them: training, interrupted and not, enhancement, evaluation, and mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from sel.data import read_image, write_png

ROOT = Path(__file__).parents[1]
TINY = [
    "--config=configs/quickstart.py",
    "--config.model.width=4",
    "--config.loss.num_bins=4",
    "--config.num_steps=6",
    "--config.diffusion.num_steps=3",
    "--config.data.crop_size=16",
    "--config.data.validation_size=32",
    "--config.data.darkenings=1",
    "--config.optimizer.warmup_steps=1",
    "--config.log_every=1",
    "--config.checkpoint.every=2",
    "--config.batch_size=2",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }


@pytest.fixture(scope="module")
def program(cache):
    def run(name, *arguments):
        command = [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=cache, timeout=300)

    return run


@pytest.fixture(scope="module")
def trained(program, tmp_path_factory):
    """A finished run and what it printed."""
    workdir = tmp_path_factory.mktemp("run")
    result = program("train", *TINY, f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    return workdir, result.stdout


@pytest.fixture
def pairs(tmp_path):
    """Two pairs of small photographs, as a user's folder."""
    generator = np.random.default_rng(0)
    for side in ("low", "high"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for name in ("a", "b"):
            write_png(tmp_path / "pairs" / side / f"{name}.png", generator.integers(0, 256, (24, 20, 3), np.uint8))
    return tmp_path / "pairs"


def parameters(workdir):
    return ocp.load((workdir / "checkpoints" / "6").absolute())


def lines(workdir):
    """Lines of the metrics without what depends on the clock."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "steps_per_second"} for record in records]


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def mistake(result, *words):
    """One line on stderr that says what and where; status 1."""
    assert result.returncode == 1, result.stderr
    found = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(found) == 1, result.stderr
    assert found[0].startswith("error: ")
    for word in words:
        assert str(word) in found[0]


def test_training_leaves_what_it_promises(trained):
    workdir, printed = trained
    assert "PSNR enhanced" in printed
    assert f"python -m experiments.enhance --checkpoint={workdir}" in printed.splitlines()[-1]
    assert [record["step"] for record in lines(workdir)] == [1, 2, 3, 4, 5, 6]
    assert json.loads((workdir / "validation.json").read_text())[-1]["name"] == "mean"
    assert read_image(workdir / "comparison.png").shape[1] > 3 * 32


def test_killed_and_continued_equals_uninterrupted(trained, cache, tmp_path):
    command = [sys.executable, "-m", "experiments.train", *TINY, f"--workdir={tmp_path}"]
    for target in ("2", "4"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=cache)
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            # The folder being written already has a name that begins so: the kill comes in the middle of a checkpoint.
            if list((tmp_path / "checkpoints").glob(f"{target}*")):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=cache, timeout=300)
    assert result.returncode == 0, result.stderr
    assert_equal_trees(parameters(tmp_path), parameters(trained[0]))
    assert lines(tmp_path) == lines(trained[0])


def test_enhance_a_photograph_and_a_folder(trained, program, pairs, tmp_path):
    workdir, _ = trained
    target = tmp_path / "bright.png"
    result = program("enhance", f"--checkpoint={workdir}", f"--input={pairs / 'low/a.png'}", f"--output={target}")
    assert result.returncode == 0, result.stderr
    first = read_image(target)
    assert first.shape == (24, 20, 3)
    (pairs / "low/broken.jpg").write_bytes(b"no image")
    folder = tmp_path / "bright"
    result = program("enhance", f"--checkpoint={workdir}", f"--input={pairs / 'low'}", f"--output={folder}")
    mistake(result, "broken.jpg")
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.png"]
    np.testing.assert_array_equal(read_image(folder / "a.png"), first)
    result = program("enhance", f"--checkpoint={workdir}", f"--input={pairs / 'low/b.png'}", f"--output={target}")
    mistake(result, target, "--overwrite")
    np.testing.assert_array_equal(read_image(target), first)


def test_evaluate_prints_and_writes_scores(trained, program, pairs, tmp_path):
    output = tmp_path / "scores.json"
    result = program("evaluate", f"--checkpoint={trained[0]}", f"--data={pairs}", f"--output={output}")
    assert result.returncode == 0, result.stderr
    scores = json.loads(output.read_text())
    assert [row["name"] for row in scores["images"]] == ["a", "b"]
    assert scores["mean"]["psnr"] == pytest.approx(np.mean([row["psnr"] for row in scores["images"]]))
    assert f"{scores['mean']['psnr']:.2f} dB" in result.stdout
    mistake(program("evaluate", f"--checkpoint={trained[0]}", f"--data={pairs}", f"--output={output}"), output)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config.los.name=l1"], ["los"]),
        (["--config.loss.nmae=l1"], ["nmae"]),
        (["--config.loss.name=l3"], ["config.loss", "name", "l1", "'l3'"]),
        (["--config.loss.divergence=euclid"], ["divergence", "hellinger", "'euclid'"]),
        (["--config.model.name=resnet"], ["model.name", "nafnet", "'resnet'"]),
        (["--config.sampler.method=euler"], ["method", "posterior", "'euler'"]),
        (["--config.num_steps=many"], ["num_steps", "many"]),
        (["--config=configs/lol_v1.py:small", "--config.data.root=/nowhere"], ["/nowhere"]),
        (["--config=configs/lol_v1.py:huge"], ["huge", "small"]),
        (["--config=configs/nothing.py"], ["configs/nothing.py"]),
        (["--config=README.md"], ["README.md"]),
        (["--wrkdir=x"], ["wrkdir"]),
    ],
)
def test_mistakes_in_training(program, tmp_path, arguments, words):
    given = [] if arguments[0].startswith("--config=") else TINY
    mistake(program("train", *given, f"--workdir={tmp_path / 'run'}", *arguments), *words)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_another_configuration_is_refused(trained, program):
    before = lines(trained[0])
    mistake(program("train", *TINY, f"--workdir={trained[0]}", "--config.seed=5"), trained[0], "seed")
    assert lines(trained[0]) == before


def test_mistakes_in_folders_and_checkpoints(trained, program, pairs, tmp_path):
    workdir, _ = trained
    for wrong in (tmp_path / "nothing", pairs):
        photograph = f"--input={pairs / 'low/a.png'}"
        mistake(program("enhance", f"--checkpoint={wrong}", photograph, f"--output={tmp_path}/x.png"), wrong)
        assert not (tmp_path / "x.png").exists()
    output = f"--output={tmp_path}/scores.json"
    (pairs / "low/a.png").rename(pairs / "low/c.png")
    mistake(program("evaluate", f"--checkpoint={workdir}", f"--data={pairs}", output), pairs, "a", "c")
    write_png(pairs / "low/a.png", np.zeros((9, 9, 3), np.uint8))
    (pairs / "low/c.png").unlink()
    mistake(program("evaluate", f"--checkpoint={workdir}", f"--data={pairs}", output), "a", "9 x 9")
    mistake(program("evaluate", f"--checkpoint={workdir}", f"--data={tmp_path / 'none'}", output), tmp_path / "none")
    assert not (tmp_path / "scores.json").exists()
