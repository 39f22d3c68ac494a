"""PyTorch files: wrappers, damage and malice. All but the first test need PyTorch, which is optional."""

import os
import pickle
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from sel.errors import UserError
from sel.interop import load_torch_checkpoint, network_from_torch, save_torch_checkpoint

GOLDEN = Path(__file__).parent / "golden" / "nafnet.npz"


@pytest.fixture(scope="module")
def weights():
    with np.load(GOLDEN) as file:
        return {k.removeprefix("weights/"): v for k, v in file.items() if k.startswith("weights/")}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_missing_pytorch_is_asked_for_by_name(monkeypatch, tmp_path, weights):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"torch is not installed: pip install .*\[torch\]'"):
        load_torch_checkpoint(tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"torch is not installed: pip install .*\[torch\]'"):
        save_torch_checkpoint(tmp_path / "weights.pth", *network_from_torch(weights))


def test_round_trip_through_a_file(torch, tmp_path, weights):
    network, params = network_from_torch(weights)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"old")
    save_torch_checkpoint(path, network, params)
    assert os.listdir(tmp_path) == ["weights.pth"]
    same, back = load_torch_checkpoint(path)
    assert same == network
    jax.tree.map(np.testing.assert_array_equal, back, params)
    with pytest.raises(UserError, match="no such folder"):
        save_torch_checkpoint(tmp_path / "absent" / "weights.pth", network, params)


WRAPPERS = ["module", "ema", "ema of module", "module of ema", "compiled", "params_ema", "ema in model"]
TRAINERS = ["model", "net", "netG"]


@pytest.mark.parametrize("wrapper", [*WRAPPERS, *TRAINERS, "state_dict of module", "bfloat16", "float64", "legacy"])
def test_wrappers_are_removed(torch, tmp_path, weights, wrapper):
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    zeros = {name: torch.zeros_like(value) for name, value in tensors.items()}
    ema = {f"ema_model.{name}": value for name, value in tensors.items()}
    content = {
        "module": {f"module.{name}": value for name, value in tensors.items()},
        "ema": {"initted": torch.tensor(True), **{f"online_model.{n}": v for n, v in zeros.items()}, **ema},
        "ema of module": {"step": torch.tensor([7]), **{f"ema_model.module.{n}": v for n, v in tensors.items()}},
        "module of ema": {
            **{f"module.online_model.{n}": v for n, v in zeros.items()},
            **{f"module.ema_model.{n}": v for n, v in tensors.items()},
        },
        "compiled": {f"module._orig_mod.{n}": v for n, v in tensors.items()},
        "ema in model": {"model": zeros, "ema": {"state_dict": tensors}, "optimizer": {"lr": 0.1}},
        "float64": {name: value.double() for name, value in tensors.items()},
        "params_ema": {"params": zeros, "params_ema": tensors},
        "state_dict of module": {"epoch": 3, "state_dict": {f"module.{name}": v for name, v in tensors.items()}},
        "bfloat16": {name: value.bfloat16() for name, value in tensors.items()},
        "legacy": tensors,
        **{trainer: {f"{trainer}.{name}": value for name, value in tensors.items()} for trainer in TRAINERS},
    }[wrapper]
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=wrapper != "legacy")
    _, params = load_torch_checkpoint(path)
    expected = network_from_torch(weights)[1]
    tolerance = 2**-8 if wrapper == "bfloat16" else 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance), params, expected)


class Malice:
    """Unpickled, it would run a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_code_in_a_file_is_not_run(torch, tmp_path, weights):
    trace, path = tmp_path / "ran", tmp_path / "weights.pth"
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))):
        write({"intro.weight": Malice(trace)}, path)
        with pytest.raises(UserError, match=r"weights.pth: not a PyTorch weights file, or damaged"):
            load_torch_checkpoint(path)
        assert not trace.exists()


def test_damaged_and_foreign_files_are_refused(torch, tmp_path, weights):
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match="no such file"):
        load_torch_checkpoint(path)
    save_torch_checkpoint(path, *network_from_torch(weights))
    whole = path.read_bytes()
    for content in (b"", b"PK", b"no weights", whole[:100], whole[: len(whole) // 2], whole[:-10]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"weights.pth: not a PyTorch weights file, or damaged") as caught:
            load_torch_checkpoint(path)
        assert "\n" not in str(caught.value)
    for content, message in (
        ([1, 2], "expected a dict of named tensors, found list"),
        ({"epoch": 3}, "expected tensors only, found epoch of type int"),
        ({3: torch.zeros(1)}, "expected a dict of named tensors, found dict"),
        ({"fc.weight": torch.zeros(1)}, "weights.pth: these weights belong to no network"),
        ({"a.b": torch.zeros(1), "module.a.b": torch.zeros(1)}, "two tensors are called a.b, one of them module.a.b"),
        ({"intro.weight": torch.zeros(2, 2).to_sparse()}, "intro.weight is no plain array of numbers"),
    ):
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            load_torch_checkpoint(path)
