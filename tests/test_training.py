"""The real training loop on a tiny network: it learns, goes on exactly where it stopped, refuses what can't work."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from programs import start_code
from tiny_runs import ENTROPY, L1, ONE_PAIR, assert_same, configured, contents, interrupted, run

from sel.choices import to_dict
from sel.errors import UserError
from sel.training import build_parts, find_checkpoint, read_config, read_params

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("compile_little")


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop(f"{what}_per_second") > 0 for line in lines for what in ("steps", "images"))
    return lines


def stored(config):
    """What a checkpoint holds of it: not how the work was done."""
    return to_dict(config, stored=True)


def test_a_run_leaves_checkpoints_and_metrics(whole):
    workdir, state, losses = whole
    assert int(state.step) == len(losses) == 6
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["4", "6"]
    lines = metrics_of(workdir)
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line, first in zip(lines, (0, 2, 4), strict=True):
        assert line["loss"] == sum(losses[first : first + 2]) / 2
        assert line["gradient_norm"] > 0
        assert line["update_norm"] > 0
        assert line["skipped"] == 0
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


@pytest.mark.parametrize("loss", [L1, ENTROPY], ids=lambda loss: loss["name"])
def test_the_loss_goes_down(tmp_path, loss):
    changes = {"loss": loss, "num_steps": 100, "checkpoint.every": 100, "data.resize_chance": 0.0}
    _, losses = run(tmp_path, configured(changes, **{"optimizer.learning_rate": 1e-2}), ONE_PAIR)
    assert len(losses) == 100
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


FAILING_WRITE = """
import sys, time
from pathlib import Path
from sel.cli.console import run
from sel.training import Hooks, train
from tiny_runs import PAIRS, configured

workdir = Path(sys.argv.pop())
folder = workdir / "checkpoints"
def report(step, metrics):
    if step == 3:
        while not (folder / "2").exists():  # written in the background
            time.sleep(0.01)
        folder.rename(workdir / "moved")
        folder.write_text("in the way")
run(lambda: train(configured(), workdir, PAIRS, hooks=Hooks(on_step_end=report)))
"""


def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_once(tmp_path):
    """Orbax's threads would keep the process for 20 minutes more."""
    process = start_code(FAILING_WRITE, tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    message = f"error: {tmp_path / 'checkpoints'}: a checkpoint can't be written; complete ones are kept."
    assert err.splitlines()[-1].startswith(message), err
    assert (tmp_path / "moved" / "2").is_dir()


def test_a_checkpoint_holds_its_configuration_and_average(whole):
    workdir, state, _ = whole
    newest = workdir / "checkpoints" / "6"
    for path in (workdir, str(workdir), workdir / "checkpoints", newest):
        assert find_checkpoint(path) == newest
    assert find_checkpoint(workdir / "checkpoints" / "4").name == "4"
    assert stored(read_config(newest)) == stored(configured())
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
            assert stored(config) == stored(configured())
            assert_same(params, state.average)
    assert len(refused) > len(names)
    assert all(str(checkpoint) in message and "\n" not in message for message in refused)


def cut(path, divisor):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // divisor])
