"""Time to enhance one photograph, beside the same network, weights, noise and steps in PyTorch, in one run and in turn.

    pip install -e '.[benchmark]'    (PyTorch)
    python -m benchmarks.enhance --output=docs/benchmarks

Writes OUTPUT/enhance.md. Before anything is timed, the results of both are compared. Both get large pages of memory, as
`experiments.enhance` asks for them; with GLIBC_TUNABLES=glibc.malloc.hugetlb=0 before the command neither does.
"""

if __name__ == "__main__":  # first of all: it may start the program again
    from sel.cli.large_pages import use_large_pages

    use_large_pages()

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.nafnet_torch import NAFNet
from experiments.run.config import load_config
from sel.diffusion import Posterior, Schedule, sampling_times
from sel.diffusion.noise import noise_field
from sel.images import write_png
from sel.interop import network_to_torch
from sel.restoration import TiledRestore
from sel.training import sampler_steps, save_params
from sel.training.state import init_params

SIZE = (400, 600)
KEY = jax.random.key(0)


class TorchSampler:
    """The posterior sampler with a clipped clean estimate, in PyTorch."""

    def __init__(self, network: NAFNet, schedule: Schedule, num_steps: int, *, channels_last: bool, compiled: bool):
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        network = network.to(memory_format=self.layout).eval()
        self.network = torch.compile(network) if compiled else network
        self.max_sigma = schedule.max_sigma
        steps = sampling_times(schedule, num_steps=num_steps)
        theta = np.asarray(schedule.theta_cumsum, np.float64) * float(schedule.dt)
        self.times = np.asarray(steps.t)
        self.now, self.after = theta[self.times], theta[np.asarray(steps.s)]
        self.sigma_bar = schedule.max_sigma * np.sqrt(-np.expm1(-2 * self.now))

    @torch.inference_mode()
    def __call__(self, mu: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Restore `[b, c, h, w]` from the draws of the start and of each step."""
        mu = mu.contiguous(memory_format=self.layout)
        x = mu + self.max_sigma * draws[0]
        for i, (t, now, after, sigma_bar) in enumerate(
            zip(self.times, self.now, self.after, self.sigma_bar, strict=True)
        ):
            noise_hat = self.network(x, mu, torch.tensor([int(t)]))
            x0 = ((x - mu - sigma_bar * noise_hat) * np.exp(now) + mu).clamp(0, 1)
            between, scale = now - after, -1 / np.expm1(-2 * now)
            from_state = -np.exp(-between) * np.expm1(-2 * after) * scale
            from_clean = -np.exp(-after) * np.expm1(-2 * between) * scale
            spread = self.max_sigma * np.sqrt(np.expm1(-2 * between) * np.expm1(-2 * after) * scale)
            x = mu + from_state * (x - mu) + from_clean * (x0 - mu) + spread * draws[i + 1]
        return x.clamp(0, 1)


def setup(num_steps: int | None) -> tuple[Any, Any, Schedule, Any, int]:
    """Configuration, network, schedule, random parameters of which none is zero, and the steps."""
    config = load_config("configs/default.py", [f"--config.sampler.num_steps={num_steps}"] if num_steps else [])
    module, schedule = config.model, config.diffusion.schedule()
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda p: np.asarray(p + 0.02 * rng.standard_normal(p.shape, np.float32)), init_params(KEY, module=module)
    )
    return config, module, schedule, params, sampler_steps(config)


def torch_network(module: Any, params: Any) -> NAFNet:
    """Sel's network and weights."""
    network = NAFNet(module.width, module.encoder_blocks, module.middle_blocks, module.decoder_blocks)
    weights = {name: torch.from_numpy(np.array(array)) for name, array in network_to_torch(module, params).items()}
    network.load_state_dict(weights)
    return network


def to_torch(image: Any) -> torch.Tensor:
    """`[b, h, w, c]` -> `[b, c, h, w]`."""
    return torch.tensor(np.asarray(image).transpose(0, 3, 1, 2))


def photograph() -> np.ndarray:
    """A dark image, `[h, w, 3]` in [0, 1]."""
    return np.random.default_rng(0).integers(0, 60, (*SIZE, 3)).astype(np.float32) / 255


def contestants(num_steps: int | None, *, compiled: bool) -> tuple[dict[str, Callable[[], np.ndarray]], int]:
    """Functions that enhance the photograph."""
    _, module, schedule, params, num_steps = setup(num_steps)
    sampler = Posterior(clip_x0=(0.0, 1.0))
    restore, mu = TiledRestore(module, schedule, sampler=sampler, num_steps=num_steps), photograph()
    placed = jax.device_put(params)
    functions: dict[str, Callable[[], np.ndarray]] = {"sel": lambda: restore(KEY, placed, mu)}
    times = [0, *np.asarray(sampling_times(schedule, num_steps=num_steps).t).tolist()]
    draws = torch.stack([to_torch(noise_field(jax.random.fold_in(KEY, t), (1, *mu.shape))) for t in times])
    for last in (False, True):
        for how in (False, True) if compiled else (False,):
            network = torch_network(module, params)
            name = f"PyTorch, channels {'last' if last else 'first'}{', compiled' if how else ''}"
            run = TorchSampler(network, schedule, num_steps, channels_last=last, compiled=how)
            functions[name] = lambda run=run: run(to_torch(mu[None]), draws)[0].numpy().transpose(1, 2, 0)
    return functions, num_steps


def measure(functions: dict[str, Callable[[], np.ndarray]], repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds of the first call and the median of the others, in turn; the results must agree.

    Each is called once uncounted before each call that counts, as one photograph follows another: while others had
    their turn, its memory has gone back to the kernel, or to the host of a virtual machine.
    """
    first, results = {}, {}
    for name, function in functions.items():
        since = time.perf_counter()
        results[name] = function()
        first[name] = time.perf_counter() - since
        # sel extends the image to a multiple of 32: the mean that the attention sees is a slightly different one.
        difference = float(np.abs(results[name] - results["sel"])[: SIZE[0] - 64, : SIZE[1] - 64].mean())
        assert difference < 0.01, f"{name}: differs by {difference}"
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            function()
            since = time.perf_counter()
            function()
            spent[name].append(time.perf_counter() - since)
    return {name: (first[name], statistics.median(values)) for name, values in spent.items()}


def from_start(num_steps: int | None) -> dict[str, float]:
    """Seconds from starting a process to a written file, and for a script around the same network in PyTorch."""
    config, _, _, params, _ = setup(num_steps)
    spent = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_params(folder / "model", params, config)
        write_png(folder / "night.png", photograph())
        program = ["experiments.enhance", f"--checkpoint={folder / 'model'}", f"--input={folder / 'night.png'}"]
        commands = {"sel": [*program, f"--output={folder / 'bright.png'}"], "PyTorch": ["benchmarks.enhance", "--once"]}
        commands["PyTorch"] += [] if num_steps is None else [f"--steps={num_steps}"]
        for name, command in commands.items():
            since = time.perf_counter()
            subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
            spent[name] = time.perf_counter() - since
    return spent


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="torch.compile, too; needs a C++ compiler")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        functions, _ = contestants(given.steps, compiled=False)
        functions["PyTorch, channels last"]()
        return
    functions, num_steps = contestants(given.steps, compiled=given.compiled)
    load = os.getloadavg()[0]
    times, started = measure(functions, given.repeats), from_start(given.steps)
    lines = [
        f"| one {SIZE[1]} x {SIZE[0]} photograph, {num_steps} steps, 1.3 M parameters | first call | each further |",
        "|---|---|---|",
        *(f"| {name} | {first:.1f} s | {further:.2f} s |" for name, (first, further) in times.items()),
    ]
    notes = (
        f"{os.cpu_count()} cores ({platform.machine()}), load before the start {load:.1f}; jax {jax.__version__}, "
        f"torch {torch.__version__}; median of {given.repeats} in turn. From starting a process to the result: sel "
        f"{started['sel']:.1f} s (a file read and written by `experiments.enhance`), PyTorch "
        f"{started['PyTorch']:.1f} s (in memory, importing sel and jax for its weights as well)."
    )
    text = "\n".join(["# Enhancing a photograph", "", "`python -m benchmarks.enhance`", "", *lines, "", notes, ""])
    print(text)
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "enhance.md").write_text(text)


if __name__ == "__main__":
    main()
