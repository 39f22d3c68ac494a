"""The real training loop on a tiny network: it learns, goes on exactly where it stopped, refuses what can't work."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.config import load_config
from sel.data import Pair
from sel.errors import UserError
from sel.training import build_parts, build_restore, find_checkpoint, from_json, read_config, read_params, train
from sel.training.optimizer import make_learning_rate, make_optimizer, update_average

ROOT = Path(__file__).parents[1]

CONFIG = {
    "seed": 3,
    "num_steps": 6,
    "batch_size": 4,
    "log_every": 2,
    "validate_every": 0,
    "model": {
        "name": "nafnet",
        "width": 4,
        "encoder_blocks": [],
        "middle_blocks": 1,
        "decoder_blocks": [],
        "dtype": "float32",
    },
    "diffusion": {"kind": "cosine", "num_steps": 10, "max_sigma": 0.2, "eps": 0.005},
    "loss": {"name": "l1"},
    "optimizer": {
        "learning_rate": 1e-3,
        "end_learning_rate": 1e-4,
        "warmup_steps": 2,
        "b1": 0.9,
        "b2": 0.99,
        "weight_decay": 1e-4,
        "clip_norm": 1.0,
    },
    "ema": {"decay": 0.9, "every": 1},
    "data": {"name": "samples", "crop_size": 16, "resize_chance": 0.5},
    "sampler": {"method": "posterior", "clip_x0": [0.0, 1.0]},
    "checkpoint": {"every": 2, "keep": 2},
}
UNET = {"name": "unet", "width": 4, "depth": 1, "norm_epsilon": 1e-5, "dtype": "float32"}
L1 = {"name": "l1"}
ENTROPY = {"name": "spatial_entropy", "num_bins": 8, "windows": [1, 3], "value_range": [-0.3, 1.3]}


def configured(changes=None, **more):
    """The tiny configuration with changes, `{"loss.name": "l2"}`."""
    config = copy.deepcopy(CONFIG)
    for key, value in {**(changes or {}), **more}.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[name] = value
    return from_json(json.dumps(config))


def pair(seed, size=24):
    x0 = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Pair(f"pair {seed}", x0 // 8, x0)


PAIRS = tuple(pair(seed) for seed in range(5))
ONE_PAIR = (pair(0, size=16),)


@pytest.fixture(scope="module", autouse=True)
def compile_little(tmp_path_factory):
    """Every run builds its step anew; the same step is compiled once, and fast rather than well."""
    options = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


class StopError(Exception):
    """What interrupts a run here."""


def run(workdir, config=None, pairs=PAIRS, stop_after=None):
    """Train, and return the final state and the losses as they were reported."""
    losses = []

    def report(step, metrics):
        losses.append(metrics["loss"])
        if step == stop_after:
            raise StopError

    return train(config or configured(), workdir, pairs, report), losses


def interrupted(workdir, after, **options):
    with pytest.raises(StopError):
        run(workdir, stop_after=after, **options)


def assert_same(a, b):
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def metrics_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("steps_per_second") > 0 for line in lines)
    return lines


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    state, losses = run(workdir)
    return workdir, state, losses


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
