"""The real training loop on a tiny network: it learns, goes on exactly where it stopped, refuses what can't work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_runs import ENTROPY, L1, ONE_PAIR, PAIRS, assert_same, configured, contents, interrupted, run

from sel.errors import UserError
from sel.training import build_parts, find_checkpoint, read_config, read_params, train

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("compile_little")


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("steps_per_second") > 0 for line in lines)
    return lines


def test_a_run_leaves_checkpoints_and_metrics(whole):
    workdir, state, losses = whole
    assert int(state.step) == len(losses) == 6
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "6"]
    lines = metrics_of(workdir)
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line, first in zip(lines, (0, 2, 4), strict=True):
        assert line["loss"] == sum(losses[first : first + 2]) / 2
        assert line["gradient_norm"] > 0
    rate = build_parts(configured()).learning_rate
    assert [line["learning_rate"] for line in lines] == [float(rate(step - 1)) for step in (2, 4, 6)]


@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_resumed_equals_uninterrupted(whole, tmp_path, stop_after):
    reference, expected, losses = whole
    interrupted(tmp_path, stop_after)
    state, rest = run(tmp_path)
    assert_same(state, expected)
    assert rest == losses[len(losses) - len(rest) :]
    assert metrics_of(tmp_path) == metrics_of(reference)
    # Nothing is left to do now, and nothing changes.
    before = contents(tmp_path)
    again, none = run(tmp_path)
    assert_same(again, expected)
    assert none == []
    assert contents(tmp_path) == before


def test_resuming_repairs_what_a_crash_leaves(whole, tmp_path):
    """A line cut off, lines of steps whose checkpoint never came, a checkpoint half written, one half deleted."""
    reference, expected, _ = whole
    interrupted(tmp_path, 5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 0.1, "steps_per_second": 1}\n\xff\n[5]\n{"step": 6, "lo')
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(checkpoints / "4", checkpoints / "6.orbax-checkpoint-tmp")
    for name in ("_CHECKPOINT_METADATA", "state/manifest.ocdbt"):
        (checkpoints / "6.orbax-checkpoint-tmp" / name).unlink()
    shutil.rmtree(checkpoints / "2" / "state")
    assert find_checkpoint(tmp_path) == checkpoints / "4"
    state, _ = run(tmp_path)
    assert_same(state, expected)
    assert metrics_of(tmp_path) == metrics_of(reference)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["4", "6"]


def test_another_configuration_is_refused(whole, tmp_path):
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    before = contents(workdir)
    changes = {"optimizer.learning_rate": 2e-3, "loss.name": "l2"}
    with pytest.raises(UserError) as caught:
        run(workdir, configured(changes))
    message = str(caught.value)
    assert f"{workdir} holds a run with another configuration" in message
    assert "config.loss.name was 'l1' and is 'l2'; config.optimizer.learning_rate was 0.001 and is 0.002" in message
    assert contents(workdir) == before


@pytest.fixture(scope="module")
def learning(tmp_path_factory):
    """Losses of a hundred steps on one repeated pair, by the name of the loss."""
    return {loss["name"]: run(tmp_path_factory.mktemp("run"), learner(loss), ONE_PAIR)[1] for loss in (L1, ENTROPY)}


def learner(loss):
    changes = {"loss": loss, "num_steps": 100, "checkpoint.every": 100}
    return configured(changes, **{"optimizer.learning_rate": 1e-2, "data.resize_chance": 0.0})


def test_the_loss_goes_down(learning):
    for losses in learning.values():
        assert len(losses) == 100
        assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = configured({"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0, "checkpoint.every": 1})
    messages = []
    for _ in range(2):  # started again, it goes on from the last good checkpoint, and stops there again
        with pytest.raises(UserError) as caught:
            run(tmp_path, config)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "of step 2 is " in messages[0]
    assert str(tmp_path) in messages[0]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(read_params(find_checkpoint(tmp_path))))
    assert [line["step"] for line in metrics_of(tmp_path)] == [1]


DEVICES = """
import json, sys
from pathlib import Path
import jax
from test_training import ONE_PAIR, learner, run
_, losses = run(Path(sys.argv[1]), learner(json.loads(sys.argv[2])), ONE_PAIR)
print(json.dumps([jax.device_count(), losses]))
"""


@pytest.mark.parametrize(("count", "loss"), [(2, L1), (4, ENTROPY)], ids=["2, l1", "4, spatial entropy"])
def test_several_devices_train_as_one(learning, tmp_path, count, loss):
    flags = f"--xla_force_host_platform_device_count={count}"
    environment = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    command = [sys.executable, "-c", DEVICES, str(tmp_path), json.dumps(loss)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=300)
    devices, losses = json.loads(done.stdout.splitlines()[-1])
    assert devices == count
    # Sums in another order: a rounding of 6e-8 grows with each update that divides by a small gradient's square.
    np.testing.assert_allclose(losses[:3], learning[loss["name"]][:3], rtol=1e-5)
    np.testing.assert_allclose(losses, learning[loss["name"]], rtol=1e-2)
    state, _ = run(tmp_path, learner(loss), ONE_PAIR)  # a checkpoint of several devices, read on one
    assert int(state.step) == 100


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the thread that failed
def test_a_checkpoint_that_cannot_be_written_stops_the_run(tmp_path):
    folder = tmp_path / "checkpoints"

    def report(step, metrics):
        if step == 3:
            shutil.rmtree(folder)
            folder.write_text("in the way")

    with pytest.raises(UserError, match=f"{folder}: a checkpoint can't be written"):
        train(configured(), tmp_path, PAIRS, report)


def test_a_checkpoint_holds_its_configuration_and_average(whole):
    workdir, state, _ = whole
    newest = workdir / "checkpoints" / "6"
    for path in (workdir, str(workdir), workdir / "checkpoints", newest):
        assert find_checkpoint(path) == newest
    assert find_checkpoint(workdir / "checkpoints" / "4").name == "4"
    assert read_config(newest) == configured()
    assert_same(read_params(newest), state.average)


@pytest.mark.parametrize("place", ["nowhere", "a file", "empty", "other", "run/checkpoints/6/state"])
def test_other_folders_are_no_checkpoints(whole, tmp_path, place):
    (tmp_path / "a file").write_text("x")
    (tmp_path / "empty").mkdir()
    shutil.copytree(ROOT / "configs", tmp_path / "other")
    shutil.copytree(whole[0], tmp_path / "run")
    with pytest.raises(UserError, match=str(tmp_path / place)) as caught:
        read_config(find_checkpoint(tmp_path / place))
    assert "\n" not in str(caught.value)


def test_damaged_checkpoints_are_named_or_harmless(whole, tmp_path):
    """Each file in turn is deleted, cut in half or emptied: an error that names the folder, or the right parameters."""
    workdir, state, _ = whole
    names = [path.relative_to(workdir) for path in contents(workdir / "checkpoints" / "6")]
    refused = []
    for name in names:
        for damage in (lambda path: path.unlink(), lambda path: cut(path, 2), lambda path: cut(path, 10**9)):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
            shutil.copytree(workdir, tmp_path / "run")
            damage(tmp_path / "run" / name)
            checkpoint = find_checkpoint(tmp_path / "run")
            try:
                config, params = read_config(checkpoint), read_params(checkpoint)
            except UserError as error:
                refused.append(str(error))
                continue
            assert config == configured()
            assert_same(params, state.average)
    assert len(refused) > len(names)
    assert all(str(checkpoint) in message and "\n" not in message for message in refused)


def cut(path, divisor):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // divisor])


def test_training_does_not_go_on_from_a_damaged_checkpoint(whole, tmp_path):
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    (workdir / "checkpoints/6/state/manifest.ocdbt").unlink()
    with pytest.raises(UserError, match="checkpoints/6: the checkpoint is damaged") as caught:
        run(workdir)
    assert "delete this folder" in str(caught.value)
    shutil.rmtree(workdir / "checkpoints/6")
    state, _ = run(workdir)
    assert_same(state, whole[1])
