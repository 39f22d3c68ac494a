"""One program on one to many devices and processes: the same losses, whatever the work is split by."""

import json
import signal
import socket

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from programs import start_code
from tiny_runs import ENTROPY, L1, PAIRS, assert_same, configured, run

from sel.errors import UserError
from sel.training import sharding

pytestmark = pytest.mark.usefixtures("compile_little")

SCRIPT = """
import json, os, sys, time
from pathlib import Path
import jax
if "PROCESS" in os.environ:
    jax.distributed.initialize("localhost:" + os.environ["PORT"], 2, int(os.environ["PROCESS"]))
from experiments.run.stopping import StopSignals
from sel.training import Hooks, Stopped, sharding, train
from tiny_runs import PAIRS, configured

sharding._SMALLEST_SPLIT = 1  # split even what is too small to be worth it
results = []
for number, (changes, pause) in enumerate(json.loads(sys.argv[2])):
    losses = []
    def report(step, metrics):
        losses.append(metrics["loss"])
        print("step", step, file=sys.stderr, flush=True)
        time.sleep(pause)
    try:
        with StopSignals() as signals:
            hooks = Hooks(on_step_end=report, should_stop=signals)
            state = train(configured(changes), Path(sys.argv[1], str(number)), PAIRS, hooks=hooks)
        split = max(len(x.addressable_shards[0].index) and x.size // x.addressable_shards[0].data.size
                    for x in jax.tree.leaves(state.params))
    except Stopped as stopped:
        split = -stopped.step
    results.append([jax.device_count(), split, losses])
print(json.dumps(results))
"""


def launch(folder, variants, **options):
    """Start the script with runs of several configurations."""
    return start_code(SCRIPT, folder, json.dumps(variants), **options)


def launch_two(folder, variants):
    """Two processes of one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    return [launch(folder, variants, PORT=port, PROCESS=str(i)) for i in range(2)]


def results_of(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """States and losses of one device by the name of the loss."""
    return {loss["name"]: run(tmp_path_factory.mktemp("alone"), configured(loss=loss)) for loss in (L1, ENTROPY)}


def assert_close(losses, expected):
    # Sums in another order: a rounding of 6e-8 grows with each update that divides by a small gradient's square.
    np.testing.assert_allclose(losses[:2], expected[:2], rtol=1e-5)
    np.testing.assert_allclose(losses, expected, rtol=1e-3)


@pytest.mark.parametrize("changes", [{"accumulate": 4}, {"remat": True}], ids=str)
def test_less_memory_gives_the_same(alone, tmp_path, changes):
    _, losses = run(tmp_path, configured({f"compute.{key}": value for key, value in changes.items()}, loss=L1))
    assert_close(losses, alone["l1"][1])


def test_several_devices_train_as_one(alone, tmp_path):
    variants = {
        2: [(L1, 2, 2), (ENTROPY, 1, 1)],
        4: [(L1, 2, 1)],
    }
    for devices, rows in variants.items():
        changes = [
            ({"loss": loss, "compute.parameter_shards": shards, "compute.accumulate": parts}, 0)
            for loss, shards, parts in rows
        ]
        results = results_of(launch(tmp_path / str(devices), changes, devices=devices))
        for (loss, shards, _), (count, split, losses) in zip(rows, results, strict=True):
            assert (count, split) == (devices, shards)
            assert_close(losses, alone[loss["name"]][1])
    # A checkpoint of split parameters and four devices, read on one.
    state, losses = run(tmp_path / "4" / "0", configured(loss=L1))
    assert losses == []
    for leaf, expected in zip(*map(jax.tree.leaves, (state.params, alone["l1"][0].params)), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-4)


def test_two_processes_train_as_one_and_save_together_when_one_is_preempted(alone, tmp_path):
    changes = [({"loss": L1, "compute.parameter_shards": 2}, 0), ({"loss": L1, "num_steps": 1000}, 0.05)]
    first, second = launch_two(tmp_path, changes)
    for line in second.stderr:
        if line == "step 20\n":  # of the second run
            second.send_signal(signal.SIGTERM)
            break
    results = [results_of(process) for process in (first, second)]
    for devices, split, losses in (process[0] for process in results):
        assert (devices, split) == (2, 2)
        assert_close(losses, alone["l1"][1])
    steps = {-process[1][1] for process in results}
    assert len(steps) == 1
    assert int(max((path.name for path in (tmp_path / "1/checkpoints").iterdir()), key=int)) == min(steps) > 20
    lines = [json.loads(line)["step"] for line in (tmp_path / "0/metrics.jsonl").read_text().splitlines()]
    assert lines == [2, 4, 6]


def test_parameters_are_split_along_their_longest_axis_that_divides():
    mesh = jax.sharding.AbstractMesh((2, 4), sharding.AXES)
    shapes = {
        "moved": (3, 3, 8, 512),
        "first": (512, 32, 6),
        "small": (8, 8),
        "odd": (129, 131),
        "scalar": (),
        "stack": (28, 64, 256),
    }
    state = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    specs = {name: tuple(s.spec) for name, s in sharding.state_shardings(state, mesh).items()}
    assert specs == {
        "moved": (None, None, None, "shard"),
        "first": ("shard", None, None),
        "small": (),
        "odd": (),
        "scalar": (),
        "stack": (None, None, "shard"),
    }
    assert sharding.split_axis(PartitionSpec(None, "shard")) == 1
    assert sharding.split_axis(PartitionSpec()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute.accumulate": 3}, r"batch_size must be a multiple of 3 \(1 devices x .*accumulate 3\), found 4"),
        ({"compute.accumulate": 0}, "config.compute.accumulate must be a whole number of at least 1, found 0"),
        ({"compute.parameter_shards": 2}, "parameter_shards must divide the number of devices, 1, found 2"),
        ({"compute.parameter_shards": -1}, "parameter_shards must be a whole number of at least 0"),
    ],
)
def test_what_does_not_divide_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "new", configured(changes))
    assert not (tmp_path / "new").exists()


def test_a_run_may_go_on_in_another_way(alone, tmp_path):
    run(tmp_path, configured({"loss": L1, "num_steps": 6}))
    state, _ = run(tmp_path, configured({"loss": L1, "compute.remat": True, "compute.accumulate": 4}))
    assert_same(state, alone["l1"][0])
    assert len(PAIRS) == 5
