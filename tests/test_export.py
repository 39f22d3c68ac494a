"""An exported sampler runs with JAX alone, and gives what the project gives."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import assert_one_line, snapshot

from sel.cli.export import symbolic_sides
from sel.models import ConditionalNAFNet, ConditionalUNet
from sel.restorer import Restorer
from sel.training import ModelConfig

pytestmark = pytest.mark.usefixtures("compile_little")

ROOT = Path(__file__).parents[1]
# From `[h, w, 3]` to `[h, w, 3]`: what the documentation says to do with symbolic sizes.
(DOCUMENTED,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL)
FIXED = """
import jax
import numpy as np

sampler = jax.export.deserialize(bytearray(open("sampler.stablehlo", "rb").read()))


def brighten(image, seed):
    return np.asarray(sampler.call(np.uint32(seed), image[None])[0])
"""
CALL = """
import sys

np.save("made.npy", brighten(np.load("image.npy"), seed=7))
packages = {name.split(".")[0] for name in sys.modules}
strangers = packages & {"sel", "flax", "optax", "orbax", "experiments", "grain", "PIL"}
assert "jax" in packages and not strangers, strangers
"""


def run_alone(folder, script, image):
    """Run a script that knows nothing of the project, and return what it made of an image."""
    np.save(folder / "image.npy", image)
    (folder / "script.py").write_text(script + CALL)
    # -I: neither the working directory nor PYTHONPATH lead to the project.
    command, environment = [sys.executable, "-I", "script.py"], os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "made.npy")


@pytest.mark.parametrize(
    ("flags", "script", "size"),
    [(["--size=20x27"], FIXED, (20, 27)), ([], DOCUMENTED, (33, 70))],
    ids=["fixed", "symbolic"],
)
def test_exported_sampler_gives_what_the_project_gives(shell, trained, tmp_path, flags, script, size):
    result = shell("export", f"--checkpoint={trained[0]}", f"--output={tmp_path / 'sampler.stablehlo'}", *flags)
    assert result.code == 0, result
    image = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    made = run_alone(tmp_path, script, image)
    expected = Restorer.from_checkpoint(str(trained[0]), seed=7).enhance(image)
    # The same operations, compiled twice: rounding, which two steps of the sampler hardly amplify.
    np.testing.assert_allclose(made, expected, atol=1e-4)
    assert made.dtype == np.float32
    assert made.std() > 0.01
    description = json.loads((tmp_path / "sampler.json").read_text())
    assert description["inputs"]["mu"]["shape"] == ([1, 20, 27, 3] if flags else [1, "32*h", "32*w", 3])
    assert description["platforms"] == ["cpu", "cuda", "tpu"]
    assert description["sampler"].items() >= {"method": "posterior", "num_steps": 2}.items()
    assert {path.name for path in tmp_path.glob("sampler*")} == {"sampler.stablehlo", "sampler.json"}


@pytest.mark.parametrize(
    ("model", "multiple"),
    [
        (ConditionalNAFNet(encoder_blocks=[1] * n, decoder_blocks=[1] * n), multiple)
        for n, multiple in ((5, 32), (6, 64))
    ]
    + [(ConditionalUNet(depth=7), 128)],
)
def test_symbolic_sides_are_those_that_the_network_halves_evenly(model, multiple):
    assert [str(side) for side in symbolic_sides(ModelConfig(model=model))] == [f"{multiple}*h", f"{multiple}*w"]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--size=400"], ["--size=400", "HEIGHTxWIDTH"]),
        (["--size=0x8"], ["--size=0x8"]),
        (["--platforms=cpu,abacus"], ["--platforms=cpu,abacus", "cuda"]),
        (["--steps=3"], ["3 steps", "1 to 2"]),
        (["--checkpoint=nowhere"], ["nowhere"]),
        (["--output=here.json"], ["here.json", "description"]),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(shell, trained, tmp_path, flags, parts):
    result = shell("export", f"--checkpoint={trained[0]}", f"--output={tmp_path / 'a.stablehlo'}", *flags)
    assert_one_line(result, *parts)
    assert not snapshot(tmp_path)


def test_files_are_replaced_on_demand_only(shell, trained, tmp_path):
    (tmp_path / "a.json").write_text("mine")
    arguments = [f"--checkpoint={trained[0]}", f"--output={tmp_path / 'a.stablehlo'}", "--size=8x8", "--platforms=cpu"]
    before = snapshot(tmp_path)
    assert_one_line(shell("export", *arguments), "a.json exists already", "--overwrite")
    assert snapshot(tmp_path) == before
    assert shell("export", *arguments, "--overwrite").code == 0
    assert json.loads((tmp_path / "a.json").read_text())["platforms"] == ["cpu"]
