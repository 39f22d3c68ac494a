"""The programs as people run them: what they leave, how they go on after a crash, and one line for every mistake."""

import io
import json
import random
import shlex
import signal
import time

import numpy as np
import pytest
from PIL import Image
from programs import ROOT, TINY, TINY_L1, assert_one_line, photograph, snapshot
from rich.console import Console

import sel.cli.console
import sel.cli.progress
from experiments.run.config import load_config
from sel import SpatialEntropyLoss
from sel.cli.progress import StepProgress
from sel.diffusion import Posterior
from sel.errors import UserError
from sel.training import Sampling, find_checkpoint, latest_step, read_params


def test_train_leaves_a_model_its_scores_and_pictures(trained):
    workdir, result = trained
    assert (result.code, result.err) == (0, "")
    assert "3 training and 2 validation pairs; 1 CPU device; loss spatial_entropy" in result.out
    assert "step 36/36  loss 0." in result.out
    assert latest_step(workdir) == 36
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 4, 6, 8, 9, 12, 15, 16, 18, 20, 21, 24, 27, 28, 30, 32, 33, 36]
    *rows, mean = json.loads((workdir / "validation.json").read_text())
    assert [row["name"] for row in [*rows, mean]] == ["chelsea", "coffee", "mean"]
    for score in ("psnr", "psnr_dark", "ssim", "ssim_dark"):
        assert mean[score] == pytest.approx((rows[0][score] + rows[1][score]) / 2)
    for row in (*rows, mean):
        assert f"{row['psnr_dark']:.2f} dB" in result.out
        assert f"{row['psnr']:.2f} dB" in result.out
    with Image.open(workdir / "comparison.png") as picture:
        assert picture.size == (3 * 24 + 4 * 6, 16 + 16 + 3 * 6)


def test_cores_share_a_batch(shell, tmp_path):
    arguments = [*TINY_L1, "--config.num_steps=2", "--config.compute.cpu_devices=2", f"--workdir={tmp_path}"]
    assert "2 CPU devices" in shell("train", *arguments).out
    one = shell("train", *arguments, "--config.compute.cpu_devices=1")  # how cores share the work is no part of a run
    assert one.code == 0, one.err
    assert "holds this run up to step 2" in one.out.replace("\n", " ")


def test_the_last_line_enhances_a_photograph(shell, trained, tmp_path):
    workdir, result = trained
    python, dash, module, *arguments = shlex.split(result.out.splitlines()[-1])
    assert (python, dash, module) == ("python", "-m", "experiments.enhance")
    photo, output = photograph(tmp_path / "night.jpg", size=(17, 23)), tmp_path / "new" / "bright.png"
    replaced = [a.replace("PHOTO.jpg", str(photo)).replace("PHOTO_bright.png", str(output)) for a in arguments]
    assert f"--checkpoint={workdir}" in replaced
    done = shell("enhance", *replaced)
    assert (done.code, done.err, done.out) == (0, "", f"{photo} -> {output}\n")
    with Image.open(output) as picture:
        assert picture.size == (23, 17)
        assert picture.mode == "RGB"


def test_killed_runs_end_as_one_that_was_not(shell, trained, tmp_path):
    """Interrupted by hand, preempted, killed at a random moment, then left alone."""
    reference, run = trained[0], tmp_path / "run"
    arguments, delay = [*TINY, f"--workdir={run}"], random.Random(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before, process = latest_step(run), shell.start("train", *arguments)
        while latest_step(run) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay.uniform(0, 0.1))
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        reached = latest_step(run)
        assert before < reached < 36
        if number != signal.SIGKILL:
            assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[number]
            assert error == f"error: interrupted; the same command goes on from step {reached}\n"
    result = shell("train", *arguments)
    assert (result.code, result.err) == (0, "")
    assert f"{run} holds this run up to step {reached}" in result.out.replace("\n", " ")
    expected, got = (read_params(find_checkpoint(workdir)) for workdir in (reference, run))
    for (path, a), (_, b) in zip(leaves(expected), leaves(got), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)
    # Where a run is asked to stop, it writes a line more, which the next one then lacks.
    lines, wanted = metrics_of(run), metrics_of(reference)
    assert {line["step"] for line in lines} >= {line["step"] for line in wanted}
    assert sum(line in lines for line in wanted) >= len(wanted) - 2
    for name in ("validation.json", "comparison.png"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["33", "36"]


def leaves(tree, path=""):
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name], f"{path}/{name}")]
    return [(path, np.asarray(tree))]


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "per_second" not in name} for line in lines]


def test_another_configuration_in_the_same_folder_is_refused(shell, trained):
    before = snapshot(trained[0])
    result = shell("train", *TINY, "--config.loss.num_bins=5", f"--workdir={trained[0]}")
    assert_one_line(result, trained[0], "config.loss.num_bins was 4 and is 5")
    assert snapshot(trained[0]) == before


@pytest.mark.parametrize("program", ["train", "enhance", "evaluate"])
def test_help_explains_itself(shell, program):
    result = shell(program, "--help")
    assert f"python -m experiments.{program}" in result.out
    for line in (ROOT / "experiments" / f"{program}.py").read_text().splitlines():
        if "flags.DEFINE" in line:
            assert f"--{'[no]' if 'bool' in line else ''}{line.split(chr(34))[1]}" in result.out
    if program == "train":
        for name in ("[no]distributed", "coordinator", "num_processes", "process_id"):
            assert f"--{name}" in result.out
    assert result.err == ""


def test_values_are_changed_by_key_and_keep_their_types():
    changes = ["num_steps=7", "loss.bandwidth=1", "loss.windows=global", "model.encoder_blocks=(1,2,1)"]
    changes += ["init_from=x=y", "sampler.clip_x0=None", "loss.implementation=dense", "optimizer.b1=1e-1"]
    config = load_config(str(ROOT / "configs" / "quickstart.py"), [f"--config.{change}" for change in changes])
    assert config.num_steps == 7
    assert config.loss == SpatialEntropyLoss(
        bandwidth=1, windows="global", implementation="dense", num_bins=16, value_range=(-0.3, 1.3)
    )
    assert config.model.encoder_blocks == (1, 2, 1)
    assert config.init_from == "x=y"
    assert config.sampler == Sampling(method=Posterior(clip_x0=None), num_steps=0)
    assert config.optimizer.b1 == 0.1
    with pytest.raises(UserError, match=r"num_steps=3\.5: .*int"):
        load_config(str(ROOT / "configs" / "quickstart.py"), ["--config.num_steps=3.5"])


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_loss_speed_and_time_left(monkeypatch, terminal):
    clock, buffer = iter(range(0, 10_000, 20)), io.StringIO()
    console = Console(file=buffer, force_terminal=terminal, width=100, markup=False)
    monkeypatch.setattr(sel.cli.console, "console", console)
    monkeypatch.setattr(sel.cli.progress.time, "monotonic", lambda: next(clock))
    with StepProgress(400) as progress:
        for step in (101, 102, 103):  # resumed at 100; 20 seconds each
            progress(step, {"loss": step / 1000, "gradient_norm": 1.0})
    text = buffer.getvalue()
    # Three losses in the mean; 297 steps at 20 s.
    assert "loss 0.1020  0.05 steps/s  1:39:00 left" in text
    assert "103/400" in text
