"""Training that begins with the parameters of another checkpoint, and the configurations that describe networks."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import ROOT, TINY_L1, assert_one_line, snapshot
from tiny_runs import CONFIG, PAIRS, UNET, assert_same, configured, run

from experiments.run.config import load_config
from sel.choices import to_dict
from sel.errors import UserError
from sel.models import ConditionalNAFNet, ConditionalUNet
from sel.training import (
    Hooks,
    ModelConfig,
    build_parts,
    find_checkpoint,
    latest_step,
    read_params,
    save_params,
    train,
)

pytestmark = pytest.mark.usefixtures("compile_little")


def short(changes):
    return configured({"optimizer.warmup_steps": 0, **changes})


def tuned(origin, changes=None):
    return short({"init_from": str(origin), **(changes or {})})


def test_training_begins_with_the_average_of_another_run(whole, tmp_path):
    """With a learning rate of 0 nothing moves: the parameters at the end are those that it began with."""
    workdir, state, _ = whole
    still = {"optimizer.learning_rate": 0.0, "optimizer.end_learning_rate": 0.0, "num_steps": 1, "seed": 9}
    got, _ = run(tmp_path, tuned(workdir, still))
    assert_same(got.params, state.average)
    assert_same(got.average, state.average)
    assert int(got.step) == 1
    # Without, they are random ones.
    fresh, _ = run(tmp_path / "fresh", short(still))
    assert not np.array_equal(fresh.params["intro"]["kernel"], got.params["intro"]["kernel"])


def test_a_run_that_goes_on_needs_its_origin_no_more(whole, tmp_path):
    origin = shutil.copytree(whole[0], tmp_path / "origin")
    expected, losses = run(tmp_path / "whole", tuned(origin))
    with pytest.raises(RuntimeError):
        run_until(tmp_path / "run", tuned(origin), 4)
    assert latest_step(tmp_path / "run") == 4
    shutil.rmtree(origin)
    state, rest = run(tmp_path / "run", tuned(origin))
    assert_same(state, expected)
    assert rest == losses[4:]
    # It is remembered: another origin, or none, is another run.
    with pytest.raises(UserError, match=r"another configuration: config.init_from was .*origin' and is ''"):
        run(tmp_path / "run", tuned(""))


def run_until(workdir, config, last):
    def report(step, metrics):
        if step == last + 1:
            raise RuntimeError

    train(config, workdir, PAIRS, hooks=Hooks(on_step_end=report))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model.width": 8}, ["config.model.width was 4 and is 8"]),
        (
            {"model.middle_blocks": 2, "model.norm_epsilon": 1e-3},
            ["config.model.middle_blocks was 1 and is 2", "config.model.norm_epsilon was 1e-05 and is 0.001"],
        ),
        ({"model": UNET}, ["config.model.name was 'nafnet' and is 'unet'", "config.model.depth was None and is 1"]),
    ],
)
def test_another_network_is_refused_and_its_keys_are_named(whole, tmp_path, changes, parts):
    with pytest.raises(UserError) as caught:
        run(tmp_path / "new", tuned(whole[0], changes))
    message = str(caught.value)
    assert message.startswith(f"config.init_from: the network of {whole[0] / 'checkpoints' / '6'} is another one: ")
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not (tmp_path / "new").exists()


def test_only_the_precision_may_differ(whole, tmp_path):
    state, _ = run(tmp_path, tuned(whole[0], {"model.dtype": "bfloat16", "num_steps": 1}))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_parameters_of_another_network_than_they_claim_are_refused(whole, tmp_path):
    params = jax.tree.map(np.asarray, read_params(find_checkpoint(whole[0])))
    params["intro"]["bias"] = np.zeros(5, np.float32)
    save_params(tmp_path / "liar", params, configured())
    with pytest.raises(UserError, match=r"liar.checkpoints.0 holds other parameters than those of its own network"):
        run(tmp_path / "new", tuned(tmp_path / "liar"))


def test_saved_parameters_are_no_run_to_go_on_with(whole, tmp_path):
    """But they can be overwritten by others, and then only when told; a training run can't be."""
    params = jax.tree.map(np.asarray, read_params(find_checkpoint(whole[0])))
    config, workdir = configured(), tmp_path / "saved"
    save_params(workdir, params, config)
    before = snapshot(workdir)
    with pytest.raises(UserError, match="holds a checkpoint already; choose another folder or give --overwrite"):
        save_params(workdir, params, config)
    assert snapshot(workdir) == before
    doubled = jax.tree.map(lambda x: 2 * x, params)
    save_params(workdir, doubled, config, overwrite=True)
    assert_same(read_params(find_checkpoint(workdir)), doubled)
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["0"]
    with pytest.raises(UserError, match=r"another configuration: config.seed was 3 and is 4"):
        run(workdir, configured(seed=4))
    with pytest.raises(UserError, match="holds a training run, which is not overwritten"):
        save_params(whole[0], params, config, overwrite=True)


def test_a_failed_write_keeps_what_was_there(whole, tmp_path, monkeypatch):
    params = jax.tree.map(np.asarray, read_params(find_checkpoint(whole[0])))
    save_params(tmp_path, params, configured())
    before = snapshot(tmp_path)

    def full(*_, **__):
        raise ValueError("no space left on device")

    monkeypatch.setattr("sel.training.checkpoint.ocp.save", full)
    with pytest.raises(UserError, match=r"the checkpoint can't be written. no space left on device"):
        save_params(tmp_path, params, configured(), overwrite=True)
    assert snapshot(tmp_path) == before


def test_neighbor_weights_are_drawn_in_each_step(tmp_path):
    """t and noise are those of a run without; and a run repeats itself."""
    loss = {"name": "spatial_entropy", "num_bins": 4, "windows": [1], "variant": "published"}
    plain = run(tmp_path / "plain", short({"loss": loss, "num_steps": 2}))[1]
    config = short({"loss": loss | {"neighbor_weights": "normal"}, "num_steps": 2})
    state, drawn = run(tmp_path / "drawn", config)
    assert drawn != plain
    assert drawn == run(tmp_path / "again", config)[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_unet_trains_and_goes_on(tmp_path):
    config = short({"model": UNET, "num_steps": 2, "checkpoint.every": 1})
    state, losses = run(tmp_path, config)
    assert len(losses) == 2
    again, none = run(tmp_path, config)
    assert_same(again, state)
    assert none == []


@pytest.mark.parametrize(
    "network",
    [
        ConditionalNAFNet(width=8, encoder_blocks=(1, 2), middle_blocks=0, decoder_blocks=(0, 1), norm_epsilon=1e-3),
        ConditionalNAFNet(dtype=jnp.bfloat16),
        ConditionalUNet(width=4, depth=2),
    ],
)
def test_a_configuration_builds_exactly_the_network_it_describes(network):
    section = to_dict(ModelConfig(model=network))["model"]
    assert configured({"model": section}).model == network


def test_a_configuration_of_before_builds_as_before():
    assert "norm_epsilon" not in CONFIG["model"]
    assert configured().model == ConditionalNAFNet(4, (), 1, ())


def test_the_unet_of_the_default_configuration():
    config = load_config(f"{ROOT}/configs/default.py:unet", ["--config.model.width=64", "--config.model.depth=4"])
    assert config.model == ConditionalUNet(64, 4)
    with pytest.raises(UserError, match=r"variant of configs/default.py must be nafnet or unet, found 'vit'"):
        load_config(f"{ROOT}/configs/default.py:vit", [])


PUBLISHED = {
    "num_steps": 500_000,
    "batch_size": 8,
    "model": {
        "name": "nafnet",
        "width": 64,
        "encoder_blocks": [1, 1, 1, 1, 28],
        "middle_blocks": 1,
        "decoder_blocks": [1, 1, 1, 1, 1],
        "norm_epsilon": 1e-5,
        "dtype": "float32",
    },
    "diffusion": {"kind": "cosine", "num_steps": 100, "max_sigma": 50 / 255, "eps": 0.005},
    "loss": {
        "name": "spatial_entropy",
        "divergence": "hellinger",
        "num_bins": 32,
        "bandwidth": 0.5,
        "kernel": "logistic",
        "windows": [1, 3, 5],
        "window_shape": "box",
        "gray": False,
        "variant": "published",
        "neighbor_weights": "normal",
        "implementation": None,
        "value_range": [0.0, 1.0],
    },
    "objective": {"compare": "x_prev", "t_sampling": "uniform", "t_weighting": "none"},
    "optimizer": {
        "name": "adamw",
        "schedule": "cosine",
        "learning_rate": 1e-4,
        "end_learning_rate": 1e-6,
        "warmup_steps": 0,
        "b1": 0.9,
        "b2": 0.99,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
    },
    "ema": {"decay": 0.995, "every": 10, "warmup": "power"},
    "sampler": {"method": "posterior", "num_steps": 100, "clip_x0": None},
}


def test_the_published_training():
    config = load_config(f"{ROOT}/configs/published.py", [])
    for section, values in PUBLISHED.items():
        assert to_dict(config)[section] == values, section
    assert (config.data.crop_size, config.data.resize_chance) == (128, 0.2)
    parts = build_parts(config)
    assert set(parts.objective.loss_fn.draw(jax.random.key(0))) == {"neighbor_weights"}
    image, t = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    params = jax.eval_shape(parts.module.init, jax.random.key(0), image, image, t)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 287_965_571


def test_train_from_another_checkpoint(shell, trained, tmp_path):
    arguments = [*TINY_L1, f"--config.init_from={trained[0]}", "--config.num_steps=3", f"--workdir={tmp_path}"]
    begins = f"parameters begin as those of {trained[0] / 'checkpoints' / '36'}"
    # Refused after it has said where it begins: such a batch can't be divided.
    refused = shell("train", *arguments, "--config.compute.accumulate=3")
    assert_one_line(refused, "config.batch_size")
    assert begins in refused.out.replace("\n", " ")
    assert "note:" not in refused.out
    result = shell("train", *arguments, "--config.diffusion.eps=0.01")
    assert (result.code, result.err) == (0, "")
    assert begins in result.out.replace("\n", " ")
    assert "note: config.diffusion.eps was 0.005 and is 0.01 here" in result.out.replace("\n", " ")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("--config.init_from=nothing", ["config.init_from", "nothing", "no such folder"]),
        ("--config.init_from=sel", ["config.init_from", "sel", "no checkpoint of this project"]),
        ("--config.model.width=6", ["config.init_from", "config.model.width was 4 and is 6"]),
    ],
)
def test_train_names_a_wrong_origin(shell, trained, tmp_path, change, parts):
    arguments = [*TINY_L1, f"--config.init_from={trained[0]}", f"--workdir={tmp_path / 'new'}", change]
    assert_one_line(shell("train", *arguments), *parts)
    assert list(tmp_path.iterdir()) == []
