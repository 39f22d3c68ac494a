"""From a configuration to its parts: what is wrong is named at once; the formulas of optimizer and average."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import ENTROPY, UNET, configured, run

from experiments.config import load_config
from sel.errors import UserError
from sel.training import build_parts, build_restore
from sel.training.optimizer import make_learning_rate, make_optimizer, update_average

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("compile_little")


def test_a_batch_must_fill_all_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(UserError, match=r"config.batch_size must be a multiple of the number of devices, 3, found 4"):
        run(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_steps", 0, "config.num_steps must be a whole number of at least 1, found 0"),
        ("log_every", 0, "config.log_every must be"),
        ("batch_size", 2.5, "config.batch_size must be a whole number of at least 1, found 2.5"),
        ("checkpoint.every", 0, "config.checkpoint.every must be"),
        ("checkpoint.keep", 0, "config.checkpoint.keep must be"),
        ("ema.every", 0, "config.ema.every must be"),
        ("ema.decay", 1, "config.ema.decay must be at least 0 and below 1, found 1"),
        ("seed", -1, "config.seed must be at least 0"),
        ("optimizer.learning_rate", float("nan"), "config.optimizer.learning_rate must be"),
        ("optimizer.learning_rate", -1, "config.optimizer.learning_rate must be"),
        ("optimizer.b1", 1, "config.optimizer.b1 must be at least 0 and below 1, found 1"),
        ("optimizer.clip_norm", "x", "config.optimizer.clip_norm must be"),
        ("optimizer.warmup_steps", 6, "config.optimizer.warmup_steps must be at least 0 and below 6, found 6"),
        ("model.name", "resnet", "config.model.name must be one of nafnet, unet, found 'resnet'"),
        ("model.dtype", "int32", "config.model.dtype must be one of float32, bfloat16, found 'int32'"),
        ("model.width", 5, "config.model: "),
        ("model.depth", 5, "config.model.depth: the network nafnet has no such key; its keys are width"),
        ("model", {**UNET, "middle_blocks": 1}, "config.model.middle_blocks: the network unet has no such key"),
        ("model", {**UNET, "depth": -1}, "config.model: depth: got -1"),
        ("model", {**UNET, "depth": 70}, "config.model: depth: got 70"),
        ("model", {"name": "unet", "width": 4}, "the configuration has no key 'dtype'"),
        ("model.encoder_blocks", [1, 1], "config.model: decoder_blocks"),
        ("model.middle_blocks", -1, "config.model: .* negative"),
        ("diffusion.kind", "sine", "config.diffusion: kind: got 'sine'"),
        ("diffusion.eps", 2.0, "config.diffusion: eps"),
        ("loss.name", "l3", "config.loss: name must be one of spatial_entropy, l1, l2, found 'l3'"),
        ("loss", {**ENTROPY, "divergence": "x"}, "config.loss: divergence must be one of .*, found 'x'"),
        ("loss", {**ENTROPY, "kernel": "x"}, "config.loss: kernel must be one of .*, found 'x'"),
        ("loss", {**ENTROPY, "variant": "x"}, "config.loss: variant must be one of .*, found 'x'"),
        ("loss", {**ENTROPY, "windows": [2]}, "config.loss: windows must be odd"),
        ("loss", {**ENTROPY, "value_range": [1.0, 0.0]}, "config.loss: value_range"),
        ("loss", {**ENTROPY, "bins": 4}, "config.loss: .*bins"),
        ("loss", {**ENTROPY, "neighbor_weights": "x"}, "config.loss.neighbor_weights: .* dirichlet, normal, found 'x'"),
        ("init_from", "/nothing", "config.init_from: /nothing: no such folder"),
        ("data.crop_size", 0, "config.data: .*crop_size"),
        ("data.crop_size", 40, "too small for crops of 40 pixels"),
        ("data.resize_chance", 2.0, "config.data: resize_chance"),
    ],
)
def test_wrong_values_are_named_before_anything_is_written(tmp_path, key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        run(tmp_path / "new", configured({key: value}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method", "euler", "config.sampler: method: got 'euler'"),
        ("method", "ode", "config.sampler: clip_x0"),
        ("clip_x0", [1.0, 0.0], "config.sampler: "),
        ("steps", 5, "config.sampler: .*steps"),
    ],
)
def test_wrong_samplers_are_named(key, value, message):
    with pytest.raises(UserError, match=message):
        build_restore(configured({f"sampler.{key}": value}))


def test_missing_keys_are_named(tmp_path):
    for key in ("optimizer", "ema", "checkpoint"):
        config = configured()
        del config[key]
        with pytest.raises(UserError, match=f"the configuration has no key '{key}'"):
            run(tmp_path / "new", config)


@pytest.mark.parametrize("file", ["default.py", "quickstart.py", "lol_v1.py", "lol_v1.py:small", "lol_v1.py:full"])
def test_every_configuration_builds(file):
    config = load_config(f"{ROOT}/configs/{file}", [])
    module = build_parts(config).module
    image, t = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), image, image, t)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 287_965_571 if file.endswith("full") else count < 2e6


def test_average_follows_its_formula():
    params = np.random.default_rng(0).normal(size=(40, 3))
    expected, got = params[0], jnp.asarray(params[0], jnp.float32)
    for step in range(1, 40):
        if step % 3 == 0:
            n = step // 3
            decay = min(0.7, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * params[step]
        new = jnp.asarray(params[step], jnp.float32)
        got = update_average(got, new, jnp.asarray(step), decay=0.7, every=3)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_learning_rate_warms_up_and_falls_on_a_cosine():
    options = {"learning_rate": 2e-3, "end_learning_rate": 1e-5, "warmup_steps": 10}
    rate = make_learning_rate(options, 50)
    n = np.arange(51)
    falling = 1e-5 + (2e-3 - 1e-5) * (1 + np.cos(np.pi * (n - 10) / 40)) / 2
    expected = np.where(n < 10, 2e-3 * n / 10, falling)
    np.testing.assert_allclose([rate(i) for i in n], expected, rtol=1e-4)
    assert make_learning_rate({**options, "warmup_steps": 0}, 50)(0) == np.float32(2e-3)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_optimizer_is_adamw_with_clipping(clip_norm):
    options = {"b1": 0.9, "b2": 0.99, "weight_decay": 0.1, "clip_norm": clip_norm}
    optimizer = make_optimizer(options, optax.constant_schedule(0.01))
    params = np.array([1.0, -2.0])
    state, got = optimizer.init(jnp.asarray(params, jnp.float32)), jnp.asarray(params, jnp.float32)
    m = v = np.zeros(2)
    for n, gradient in enumerate(np.array([[3.0, 4.0], [0.1, -0.2], [-30.0, 1.0]]), start=1):
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, got)
        got = optax.apply_updates(got, updates)
        norm = np.linalg.norm(gradient)
        if clip_norm and norm > clip_norm:
            gradient = gradient * clip_norm / norm
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        direction = (m / (1 - 0.9**n)) / (np.sqrt(v / (1 - 0.99**n)) + 1e-8)
        params = params - 0.01 * (direction + 0.1 * params)
        np.testing.assert_allclose(got, params, rtol=1e-5)
