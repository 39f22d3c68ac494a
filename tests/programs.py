"""Runs the programs as people do, on photographs made up here."""

import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]

TINY = [
    "--config=configs/quickstart.py",
    "--config.num_steps=36",
    "--config.batch_size=2",
    "--config.compute.cpu_devices=1",
    "--config.log_every=4",
    "--config.checkpoint.every=3",
    "--config.model.width=4",
    "--config.model.encoder_blocks=()",
    "--config.model.decoder_blocks=()",
    "--config.diffusion.num_steps=2",
    "--config.loss.num_bins=4",
    "--config.loss.windows=(1,3)",
    "--config.optimizer.warmup_steps=1",
    "--config.data.crop_size=16",
    "--config.data.darkenings=1",
    "--config.data.validation_size=24",
]
# Where the loss does not matter: one that is compiled sooner.
TINY_L1 = [*(change for change in TINY if "config.loss" not in change), "--config.loss.name=l1"]

# Starts programs by forking itself, so that the libraries are imported once for all of them.
SERVER = """
import json, os, runpy, sys, traceback
import ml_collections, rich.progress, rich.table
import sel.data, sel.metrics, sel.restoration, sel.training
for line in sys.stdin:
    module, arguments, streams = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in enumerate(streams, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv, code = [module, *arguments], 0
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Shell:
    """Runs `python -m experiments.NAME ARGUMENTS` from the root of the project."""

    def __init__(self, folder):
        self._streams = [str(folder / "out"), str(folder / "err")]
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XDG_CACHE_HOME": str(folder / "decoded"),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        self.server = self._popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _popen(self, command, **options):
        return subprocess.Popen(command, cwd=ROOT, env=self._environment, text=True, **options)

    def __call__(self, program, *arguments):
        job = [f"experiments.{program}", [str(argument) for argument in arguments], self._streams]
        print(json.dumps(job), file=self.server.stdin, flush=True)
        code = int(self.server.stdout.readline())
        return Result(code, *(Path(path).read_text() for path in self._streams))

    def start(self, program, *arguments):
        """A process of its own, to be killed."""
        command = [sys.executable, "-m", f"experiments.{program}", *map(str, arguments)]
        # A shell that runs the tests in the background has told them, and so their children, to ignore Ctrl-C.
        hear = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return self._popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear)


def start_code(code, *arguments, devices=1, **environment):
    """Run Python code that may import the tests' modules, in a process of its own."""
    environment = os.environ | environment | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def photograph(path, seed=0, size=(20, 24), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_pairs(root, names=("a", "b"), size=(20, 24)):
    for seed, name in enumerate(names):
        photograph(root / "low" / f"{name}.png", seed, size)
        photograph(root / "high" / f"{name}.png", seed + 100, size)
    return root


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_one_line(result, *parts):
    assert result.code == 1, result
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1, result.err
    assert result.err.endswith("\n")
    for part in parts:
        assert str(part) in result.err
