"""From a configuration to its parts: what is wrong is named at once."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import CONFIG, ENTROPY, UNET, assert_same, configured, interrupted, run, written

from experiments.run.config import load_config
from sel import SpatialEntropyLoss
from sel.choices import parse
from sel.errors import UserError
from sel.training import Config, build_parts, from_stored, sampler_steps
from sel.training.optimizer import AdamW

ROOT = Path(__file__).parents[1]
X0 = {"compare": "x0", "t_sampling": "uniform", "t_weighting": "none"}
OPTIMIZER = {key: value for key, value in CONFIG["optimizer"].items() if key != "end_learning_rate"}
MIXTURE = {"name": "mixture", "entropy": 0.0, "l1": 1.0, "blurred_l1": 1.0, "num_bins": 4}
pytestmark = pytest.mark.usefixtures("compile_little")


def test_a_batch_must_fill_all_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(UserError, match=r"config.batch_size must be a multiple of 3 .*, found 4"):
        run(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_steps", 0, "config.num_steps must be a whole number of at least 1, found 0"),
        ("log_every", 0, "config.log_every must be"),
        ("batch_size", 2.5, "config.batch_size must be a whole number of at least 1, found 2.5"),
        ("max_skipped", True, "config.max_skipped must be a whole number of at least 1, found True"),
        ("checkpoint.every", 0, "config.checkpoint.every must be"),
        ("checkpoint.keep", 0, "config.checkpoint.keep must be"),
        ("ema.every", 0, "config.ema.every must be"),
        ("ema.decay", 1, "config.ema.decay must be at least 0 and below 1, found 1"),
        ("seed", -1, "config.seed must be a whole number of at least 0"),
        ("optimizer.learning_rate", float("nan"), "config.optimizer.learning_rate must be"),
        ("optimizer.learning_rate", -1, "config.optimizer.learning_rate must be"),
        ("optimizer.b1", 2, "config.optimizer.b1 must be at least 0 and below 1, found 2"),
        ("optimizer.clip_norm", "x", "config.optimizer.clip_norm must be at least 0 and finite, found 'x'"),
        ("optimizer.warmup_steps", -1, "config.optimizer.warmup_steps must be a whole number of at least 0, found -1"),
        ("compute.accumulate", 0, "config.compute.accumulate must be a whole number of at least 1, found 0"),
        ("compute.cpu_devices", -1, "config.compute.cpu_devices must be a whole number of at least 0, found -1"),
        ("model.name", "resnet", "config.model.name must be one of nafnet, unet, found 'resnet'"),
        ("model.dtype", "int32", "config.model.dtype must be one of float32, bfloat16, found 'int32'"),
        ("model.width", 5, "config.model.width must be an even number, found 5"),
        ("model.width", 2, "config.model.width must be a whole number of at least 4, found 2"),
        ("model.depth", 5, "config.model.depth has no effect: .*unet, not by nafnet"),
        ("model", {**UNET, "middle_blocks": 1}, "config.model.middle_blocks has no effect: .*nafnet, not by unet"),
        ("model", {**UNET, "depth": -1}, "config.model.depth must be a whole number of at least 0 and at most 10"),
        ("model", {**UNET, "depth": 70}, "config.model.depth must be .*, found 70"),
        ("model.encoder_blocks", [1, 1], "config.model.decoder_blocks must be 2 numbers, as encoder_blocks, found"),
        ("model.encoder_blocks", [-1], "config.model.encoder_blocks must be a list, each element a whole number of at"),
        ("model.middle_blocks", -1, "config.model.middle_blocks must be"),
        ("diffusion.kind", "sine", "config.diffusion.kind must be one of cosine, linear, constant, found 'sine'"),
        ("diffusion.eps", 2.0, "config.diffusion.eps must be above 0 and below 1, found 2.0"),
        ("loss.name", "l3", "config.loss.name must be one of spatial_entropy, l1, l2, mixture, found 'l3'"),
        ("loss", {**ENTROPY, "divergence": "x"}, "config.loss.divergence must be one of .*, found 'x'"),
        ("loss", {**ENTROPY, "kernel": "x"}, "config.loss.kernel must be one of .*, found 'x'"),
        ("loss", {**ENTROPY, "variant": "x"}, "config.loss.variant must be one of .*, found 'x'"),
        ("loss", {**ENTROPY, "num_bins": 1}, "config.loss.num_bins must be a whole number of at least 2, found 1"),
        ("loss", {**ENTROPY, "bandwidth": "x"}, "config.loss.bandwidth must be one of silverman, found 'x'"),
        ("loss", {**ENTROPY, "windows": [2]}, "config.loss.windows must be odd"),
        ("loss", {**ENTROPY, "value_range": [1.0, 0.0]}, "config.loss.value_range must be"),
        ("loss", {**ENTROPY, "neighbor_weights": "x"}, "config.loss.neighbor_weights .* dirichlet, normal, found 'x'"),
        ("loss", {**ENTROPY, "bins": 4}, "config.loss.bins: there is no such key; did you mean loss.num_bins"),
        ("loss", {"name": "mixture", "entropy": 0, "l1": 0, "blurred_l1": 0}, "a mixture needs a weight above 0"),
        ("loss", {"name": "mixture", "entropy": 1, "l1": -1}, "config.loss.l1 must be a weight of at least 0"),
        ("loss", {**MIXTURE, "blur_sigma": 0.0}, "config.loss.blur_sigma must be above 0 and finite, found 0.0"),
        ("objective.compare", "x1", "config.objective.compare must be one of x_prev, x0, found 'x1'"),
        ("objective.t_sampling", "x", "config.objective.t_sampling must be one of .*, found 'x'"),
        ("objective.t_weighting", "x", "config.objective.t_weighting must be one of .*, found 'x'"),
        ("objective", {**X0, "clip_x0": [1.0, 0.0]}, "config.objective.clip_x0 must be"),
        ("objective", {**X0, "clip_x0": 1.0}, "config.objective.clip_x0 must be .* found 1.0"),
        ("objective", {**X0, "t_weighting": "min_snr", "snr_cap": 0.0}, "config.objective.snr_cap must be above 0"),
        ("optimizer.name", "sgd", "config.optimizer.name must be one of adamw, adam, lion, found 'sgd'"),
        ("optimizer.schedule", "linear", "config.optimizer.schedule must be one of .*, found 'linear'"),
        ("ema.warmup", "slow", "config.ema.warmup must be one of ratio, power, none, found 'slow'"),
        ("ema", 3, "config.ema is a section with keys of its own, found 3"),
        ("data.crop_size", 0, "config.data.crop_size must be a whole number of at least 1, found 0"),
        ("data.resize_chance", 2.0, "config.data.resize_chance must be at least 0 and at most 1, found 2.0"),
        ("data", {"name": "pairs", "validation": 1.5}, "config.data.validation must be a name or a fraction .*1.5"),
        ("sampler.method", "euler", "config.sampler.method must be one of .*, found 'euler'"),
        ("sampler.method", "ode", "config.sampler.clip_x0 has no effect: .* not by ode"),
        ("sampler.clip_x0", [1.0, 0.0], "config.sampler.clip_x0 must be"),
        ("sampler.steps", 5, "config.sampler.steps: there is no such key; did you mean sampler.num_steps?"),
        ("sampler.num_steps", -3, "config.sampler.num_steps must be a whole number of at least 0, found -3"),
        ("sampler.num_steps", 2.5, "config.sampler.num_steps must be a whole number .*, found 2.5"),
        ("sampler.num_steps", 5000, "config.sampler.num_steps must be at most the 10 steps of the diffusion .*, found"),
    ],
)
def test_wrong_values_are_named(key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        configured({key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "/nothing"}, "config.init_from: /nothing: no such folder"),
        ({"data.crop_size": 40}, "too small for crops of 40 pixels"),
        (
            {"optimizer": {"schedule": "multistep", "milestones": [0.5, 0.1]}},
            "config.optimizer.milestones must rise, as steps from 1 to 5 .*, found \\(0.5, 0.1\\)",
        ),
    ],
)
def test_what_does_not_fit_together_is_named_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "new", configured(changes))
    assert not (tmp_path / "new").exists()


def test_what_is_missing_has_its_default():
    config = parse(Config, {})
    assert config == Config()
    assert (config.batch_size, config.optimizer, config.loss) == (8, AdamW(), SpatialEntropyLoss())


@pytest.mark.parametrize("file", ["default.py", "quickstart.py", "lol_v1.py", "lol_v1.py:small", "lol_v1.py:full"])
def test_every_configuration_builds(file):
    config = load_config(f"{ROOT}/configs/{file}", [])
    module = build_parts(config).module
    image, t = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), image, image, t)
    assert build_parts(load_config(f"{ROOT}/configs/{file}", ["--config.num_steps=60"]))  # a short trial of it
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 287_965_571 if file.endswith("full") else count < 2e6


def test_other_choices_train_and_go_on(tmp_path):
    """All of them at once; the second half after an interruption ends as without."""
    config = configured(
        {
            "loss": MIXTURE,
            "objective": {
                **X0,
                "clip_x0": [0.0, 1.0],
                "t_sampling": "importance",
                "t_weighting": "min_snr",
                "snr_cap": 5.0,
            },
            "optimizer": {**OPTIMIZER, "name": "lion", "schedule": "multistep", "milestones": [0.5, 5], "gamma": 0.5},
            "ema.warmup": "power",
        }
    )
    state, losses = run(tmp_path / "whole", config)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    interrupted(tmp_path / "halves", 4, config=config)
    again, _ = run(tmp_path / "halves", config)
    assert_same(again, state)


@pytest.mark.parametrize(
    ("method", "given", "most", "steps"),
    [
        ("posterior", 0, 100, 16),
        ("ddim", 0, 10, 10),
        ("sde", 0, 100, 100),
        ("ode", 0, 1000, 1000),
        ("posterior", 40, 100, 40),
    ],
)
def test_a_sampler_takes_few_steps_where_few_are_enough(method, given, most, steps):
    changes = {"sampler": {"method": method, "num_steps": given}, "diffusion.num_steps": most}
    assert sampler_steps(configured(changes)) == steps
    before = written(changes)
    if not given:
        del before["sampler"]["num_steps"]  # checkpoints from before there was the key
    assert sampler_steps(from_stored(before)) == steps


def test_a_checkpoint_with_more_steps_than_its_diffusion_takes_all():
    """Earlier versions took as many as there are, and wrote down what was set."""
    assert sampler_steps(from_stored(written({"sampler.num_steps": 5000}))) == 10
