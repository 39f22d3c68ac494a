"""What goes wrong on the way, and what is left then: gradients that are not finite, damage, the end of a machine."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import PAIRS, assert_same, configured, contents, pair, run

from sel.data import Pair
from sel.errors import UserError
from sel.training import Hooks, Stopped, build_restore, find_checkpoint, read_params, train
from sel.training import step as step_module

pytestmark = pytest.mark.usefixtures("compile_little")

WHITE = Pair("the white one", *[np.full((24, 24, 3), 255, np.uint8)] * 2)


def steps_in(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def lines_of(workdir, name="metrics.jsonl"):
    path = workdir / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def poisoned(monkeypatch):
    """Losses of white images are not numbers."""
    losses_of = step_module.training_losses

    def losses(objective, noise_fn, x0, mu, draws):
        return jnp.where(x0.min((1, 2, 3)) == 1, jnp.nan, losses_of(objective, noise_fn, x0, mu, draws))

    monkeypatch.setattr(step_module, "training_losses", losses)


def test_steps_without_a_finite_gradient_change_nothing_and_are_listed(poisoned, tmp_path):
    config = configured({"num_steps": 8, "checkpoint.every": 1, "checkpoint.keep": 9, "log_every": 4})
    pairs = [*map(pair, range(9)), WHITE]
    run(tmp_path, config, pairs)
    listed = lines_of(tmp_path, "skipped.jsonl")
    skipped = [line["step"] for line in listed]
    assert 0 < len(skipped) < 8
    for line in listed:
        assert "the white one" in line["images"]
        assert len(line["images"]) == 4
        assert line["loss"] == "nan"
    # A state that no step has changed is not saved again.
    assert steps_in(tmp_path) == [step for step in range(1, 9) if step not in skipped]
    for line in lines_of(tmp_path):  # one a step, because of the checkpoints
        assert line["skipped"] == (line["step"] in skipped)
        assert (line["loss"] is None) == (line["step"] in skipped)
    # Continued in the middle, the run lists the same ones and ends the same.
    end = read_params(find_checkpoint(tmp_path))
    for step in steps_in(tmp_path)[2:]:
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    run(tmp_path, config, pairs)
    assert lines_of(tmp_path, "skipped.jsonl") == listed
    assert_same(read_params(find_checkpoint(tmp_path)), end)


def test_a_run_of_such_steps_from_the_start_ends_it(poisoned, tmp_path):
    with pytest.raises(UserError, match="none of the last 4 steps, 1 to 4, had a finite loss and gradient"):
        run(tmp_path, configured(), [WHITE])
    assert [line["step"] for line in lines_of(tmp_path, "skipped.jsonl")] == [1, 2, 3, 4]
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("every", "last"), [(1, 4), (100, 6)])
def test_the_last_good_state_is_left(tmp_path, every, last):
    config = configured({"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0, "checkpoint.every": every})
    messages = []
    for _ in range(2):  # started again, it goes on from the last good state, and stops there again
        with pytest.raises(UserError) as caught:
            run(tmp_path, config)
        messages.append(str(caught.value))
        assert read_params(tmp_path / "checkpoints/1")
    assert messages[0] == messages[1]
    assert f"none of the last {last - 1} steps, 2 to {last}," in messages[0]
    assert "The state after step 1" in messages[0]
    assert str(tmp_path) in messages[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(read_params(tmp_path / "checkpoints/1")))


def test_training_passes_over_damaged_checkpoints(whole, tmp_path):
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    (workdir / "checkpoints/6/state/manifest.ocdbt").unlink()
    told = []
    state = train(configured(), workdir, PAIRS, hooks=Hooks(on_message=told.append))
    assert_same(state, whole[1])
    assert told == ["the checkpoint of step 6 is damaged and now called 6.damaged; going on from 4"]
    assert steps_in(workdir) == [4, 6]
    assert (workdir / "checkpoints/6.damaged").is_dir()
    assert [line["step"] for line in lines_of(workdir)] == [2, 4, 6]


def test_all_checkpoints_damaged_is_an_error_and_nothing_is_touched(whole, tmp_path):
    workdir = shutil.copytree(whole[0], tmp_path / "run")
    (workdir / "checkpoints/6/_CHECKPOINT_METADATA").write_text("{")
    shutil.rmtree(workdir / "checkpoints/4/state")
    before = contents(workdir)
    with pytest.raises(UserError, match="checkpoints/6: the checkpoint is damaged"):
        run(workdir)
    assert contents(workdir) == before


def test_the_best_are_kept_beside_the_newest(tmp_path):
    scores = {1: 10.0, 2: 30.0, 3: np.nan, 4: 20.0, 5: np.inf, 6: 5.0, 7: 25.0, 8: 1.0}
    config = configured({"num_steps": 8, "validate_every": 1, "checkpoint": {"every": 8, "keep": 1, "keep_best": 2}})
    train(config, tmp_path, PAIRS, hooks=Hooks(on_validation=lambda step, _: {"validation_psnr": scores[step]}))
    assert steps_in(tmp_path) == [2, 5, 8]
    assert find_checkpoint(tmp_path).name == "8"


@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_stopped_run_has_saved_the_step_and_goes_on_exactly(whole, tmp_path, after):
    with pytest.raises(Stopped) as caught:
        train(configured(), tmp_path, PAIRS, hooks=Hooks(should_stop=lambda step: step == after))
    assert caught.value.step == after == steps_in(tmp_path)[-1]
    state, losses = run(tmp_path)
    assert_same(state, whole[1])
    assert len(losses) == 6 - after


def test_to_stop_after_the_last_step_is_to_finish(tmp_path):
    state = train(configured(), tmp_path, PAIRS, hooks=Hooks(should_stop=lambda step: step == 6))
    assert int(state.step) == 6


def test_a_state_in_bfloat16_computation_is_float32(tmp_path):
    config = configured({"model.dtype": "bfloat16", "num_steps": 3})
    state, losses = run(tmp_path, config)
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert np.isfinite(losses).all()
    assert build_restore(config)
