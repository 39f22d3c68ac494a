"""Published PyTorch weights become a checkpoint that every program takes. All but the first test need PyTorch."""

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from programs import ROOT, TINY_L1, assert_one_line, make_pairs, photograph, snapshot

from sel.diffusion import SAMPLERS, Diffusion, Posterior
from sel.interop import network_from_torch, save_torch_checkpoint
from sel.models import ConditionalNAFNet
from sel.training import Sampling, find_checkpoint, read_config, read_params

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = ("nafnet", "unet")


def published(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {k.removeprefix("weights/"): v for k, v in file.items() if k.startswith("weights/")}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def weights(torch, tmp_path):
    """Writes a state dict, by default the golden NAFNet's, with changes."""

    def write(content=None, name="nafnet.pth"):
        content = published("nafnet") if content is None else content
        if isinstance(content, dict):
            content = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in content.items()}
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def test_missing_pytorch_is_asked_for_by_name(tmp_path):
    """A module of that name that can't be imported hides PyTorch where it is installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "torch.py").write_text("raise ImportError('No module named torch')")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "hidden"), "JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        "-m",
        "experiments.convert_torch",
        tmp_path / "weights.pth",
        f"--output={tmp_path / 'o'}",
    ]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: torch can't be imported (No module named torch): pip install")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_checkpoint_is_the_file(shell, weights, tmp_path, name):
    """Same network, same parameters bit for bit, and the published diffusion of its kind."""
    result = shell("convert_torch", weights(published(name)), f"--output={tmp_path / 'model'}")
    assert (result.code, result.err) == (0, "")
    network, params = network_from_torch(published(name))
    checkpoint = find_checkpoint(tmp_path / "model")
    config = read_config(checkpoint)
    assert config.model == network
    jax.tree.map(np.testing.assert_array_equal, read_params(checkpoint), params)
    max_sigma, preset = {"nafnet": (50, "low-light"), "unet": (10, "deraining")}[name]
    assert config.diffusion == Diffusion("cosine", 100, max_sigma / 255, 0.005)
    assert config.sampler == Sampling(method=Posterior(clip_x0=None), num_steps=100)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    for part in (name, f"width {network.width}", f"{count:,} parameters", f"{preset} (assumed", f"{max_sigma}/255"):
        assert part in result.out
    command = result.out.splitlines()[-1]
    assert command.startswith(f"  python -m experiments.enhance --checkpoint={tmp_path / 'model'} --input=")


def test_every_program_takes_the_checkpoint(shell, weights, tmp_path):
    """Enhance repeats itself, evaluate scores, and train goes on from the parameters."""
    small = published("unet")
    assert shell("convert_torch", weights(small), f"--output={tmp_path / 'm'}", "--num_steps=3").code == 0
    photo, output = photograph(tmp_path / "night.png", size=(13, 17)), tmp_path / "bright.png"
    result = shell("enhance", f"--checkpoint={tmp_path / 'm'}", f"--input={photo}", f"--output={output}")
    assert (result.code, result.err) == (0, "")
    with Image.open(output) as picture:
        assert picture.size == (17, 13)
    data, scores = make_pairs(tmp_path / "data"), tmp_path / "scores"
    result = shell("evaluate", f"--checkpoint={tmp_path / 'm'}", f"--data={data}", f"--output={scores}")
    assert (result.code, result.err) == (0, "")
    assert json.loads((scores / "summary.json").read_text())["images"] == 2


def test_fine_tuning_begins_with_the_published_parameters(shell, weights, tmp_path):
    assert shell("convert_torch", weights(), f"--output={tmp_path / 'm'}", "--num_steps=2").code == 0
    same = ["--config.model.width=8", "--config.model.encoder_blocks=(1,2,1)", "--config.model.decoder_blocks=(1,1,1)"]
    still = ["--config.num_steps=1", "--config.optimizer.learning_rate=0.0", "--config.optimizer.end_learning_rate=0.0"]
    arguments = [
        *TINY_L1,
        *same,
        *still,
        "--config.optimizer.warmup_steps=0",
        f"--config.init_from={tmp_path / 'm'}",
    ]
    result = shell("train", *arguments, f"--workdir={tmp_path / 'run'}")
    assert (result.code, result.err) == (0, "")
    params = read_params(find_checkpoint(tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, params, network_from_torch(published("nafnet"))[1])
    # The checkpoint itself is no run to go on with, and stays as it is.
    before = snapshot(tmp_path / "m")
    assert_one_line(shell("train", *arguments, f"--workdir={tmp_path / 'm'}"), tmp_path / "m", "another configuration")
    assert snapshot(tmp_path / "m") == before


@pytest.mark.parametrize(
    ("flags", "diffusion", "method"),
    [
        (["--preset=shadow-removal"], {"max_sigma": 30 / 255}, "posterior"),
        (["--preset=deblurring", "--method=sde"], {"max_sigma": 10 / 255}, "sde"),
        (["--max_sigma=70", "--num_steps=1000"], {"max_sigma": 70 / 255, "num_steps": 1000}, "posterior"),
        (["--kind=linear", "--eps=0.01"], {"kind": "linear", "eps": 0.01}, "posterior"),
    ],
)
def test_settings_of_sibling_models(shell, weights, tmp_path, flags, diffusion, method):
    assert shell("convert_torch", weights(), f"--output={tmp_path / 'model'}", *flags).code == 0
    config = read_config(find_checkpoint(tmp_path / "model"))
    assert config.diffusion == Diffusion(**{"max_sigma": 50 / 255} | diffusion)
    assert type(config.sampler.method) is SAMPLERS[method]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--preset=fog"], ["--preset=fog", "low-light, refusion, deraining"]),
        (["--max_sigma=0.196"], ["--max_sigma=0.196", "steps of 1/255"]),
        (["--max_sigma=nan"], ["--max_sigma=nan"]),
        (["--kind=sine"], ["config.diffusion", "cosine", "'sine'"]),
        (["--num_steps=0"], ["config.diffusion", "num_steps", "0"]),
        (["--eps=2"], ["config.diffusion", "eps", "2"]),
        (["--method=euler"], ["config.sampler", "posterior", "'euler'"]),
        (["other.pth"], ["unexpected argument 'other.pth'"]),
        (["--config.seed=1"], ["config.seed"]),
    ],
)
def test_wrong_settings_are_named(shell, weights, tmp_path, flags, parts):
    assert_one_line(shell("convert_torch", weights(), f"--output={tmp_path / 'new'}", *flags), *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["nafnet.pth"]


def without(name):
    return {k: v for k, v in published("nafnet").items() if k != name}


class Malice:
    """Unpickled, it would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


TENSOR = "encoders.1.0.conv1.weight"
RENAMED = {**without(TENSOR), "encoders.1.0.conv_1.weight": published("nafnet")[TENSOR]}
TRANSPOSED = {**published("nafnet"), TENSOR: published("nafnet")[TENSOR].swapaxes(0, 1).copy()}
UNCONDITIONAL = {**published("nafnet"), "intro.weight": np.zeros((8, 3, 3, 3), np.float32)}
LATENT = {
    **published("nafnet"),
    "intro.weight": np.zeros((8, 16, 3, 3), np.float32),
    "ending.weight": np.zeros((8, 8, 3, 3), np.float32),
    "ending.bias": np.zeros(8, np.float32),
}
BROKEN = {**published("nafnet"), TENSOR: np.full_like(published("nafnet")[TENSOR], np.nan)}
CONTENTS = {
    "renamed": (RENAMED, [f"1 missing: {TENSOR}", "1 unexpected: encoders.1.0.conv_1.weight"]),
    "missing": (without(TENSOR), [f"1 missing: {TENSOR}"]),
    "transposed": (TRANSPOSED, [f"1 wrong shape: {TENSOR} (16, 32, 1, 1) instead of (32, 16, 1, 1)"]),
    "unconditional": (UNCONDITIONAL, ["intro.weight sees 3 channels", "noisy state alone"]),
    "latent": (LATENT, ["images of 8 channels", "photographs have 3"]),
    "not finite": (BROKEN, [f"1 not finite: {TENSOR}"]),
    "foreign": ({"fc.weight": np.zeros(3)}, ["no network known here"]),
    "a list": ([1, 2], ["expected a dict of named tensors, found list"]),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_wrong_weights_are_named(shell, weights, tmp_path, name):
    content, parts = CONTENTS[name]
    result = shell("convert_torch", weights(content), f"--output={tmp_path / 'new'}")
    assert_one_line(result, tmp_path / "nafnet.pth", *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["nafnet.pth"]


def test_damaged_and_malicious_files_are_refused(shell, torch, weights, tmp_path):
    whole = weights().read_bytes()
    torch.save(published("nafnet") | {TENSOR: Malice(tmp_path / "ran")}, tmp_path / "malice.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({TENSOR: Malice(tmp_path / "ran")}))
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "folder.pth").mkdir()
    for name in ("malice", "plain", "half", "empty"):
        result = shell("convert_torch", tmp_path / f"{name}.pth", f"--output={tmp_path / 'new'}")
        assert_one_line(result, tmp_path / f"{name}.pth", "not a PyTorch weights file, or damaged")
    for name in ("absent", "folder"):
        result = shell("convert_torch", tmp_path / f"{name}.pth", f"--output={tmp_path / 'new'}")
        assert_one_line(result, tmp_path / f"{name}.pth", "no such file")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten_unless_told(shell, trained, weights, tmp_path):
    arguments = [weights(), f"--output={tmp_path / 'model'}"]
    assert shell("convert_torch", *arguments).code == 0
    before = snapshot(tmp_path / "model")
    assert_one_line(shell("convert_torch", *arguments), tmp_path / "model", "holds a checkpoint already", "--overwrite")
    assert snapshot(tmp_path / "model") == before
    assert shell("convert_torch", *arguments, "--overwrite", "--max_sigma=30").code == 0
    assert read_config(find_checkpoint(tmp_path / "model")).diffusion.max_sigma == 30 / 255
    run = snapshot(trained[0])
    result = shell("convert_torch", arguments[0], f"--output={trained[0]}", "--overwrite")
    assert_one_line(result, trained[0], "holds a training run")
    assert snapshot(trained[0]) == run
    assert_one_line(shell("convert_torch", arguments[0], f"--output={arguments[0]}"), arguments[0], "is a file")
    assert_one_line(shell("convert_torch", arguments[0]), "--output is required")
    assert_one_line(shell("convert_torch", f"--output={tmp_path / 'new'}"), "a file of PyTorch weights is required")


def test_help_explains_itself(shell):
    result = shell("convert_torch", "--help")
    for part in (
        "python -m experiments.convert_torch lolv1.pth --output=",
        "deraining",
        "--max_sigma",
        "--[no]overwrite",
    ):
        assert part in result.out


@pytest.mark.slow
def test_the_published_size(torch, tmp_path):
    """288 M random weights. On one core, the conversion took 19 s and 3.6 GiB of memory at its peak;
    the whole test 84 s and 3.7 GiB, and 2.2 GB of disk."""
    network = ConditionalNAFNet()
    image, t = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    abstract = jax.eval_shape(network.init, jax.random.key(0), image, image, t)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), abstract)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 287_965_571
    save_torch_checkpoint(tmp_path / "lolv1.pth", network, params)
    command = [sys.executable, "-m", "experiments.convert_torch", tmp_path / "lolv1.pth", f"--output={tmp_path / 'm'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=1200)
    assert "287,965,571 parameters, 1,098.5 MiB" in result.stdout
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    assert peak < 6
    assert read_config(find_checkpoint(tmp_path / "m")).model == network
    jax.tree.map(np.testing.assert_array_equal, read_params(find_checkpoint(tmp_path / "m")), params)
