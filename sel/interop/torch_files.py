"""Reading and writing PyTorch weight files. PyTorch itself is optional: it is imported when a file is touched."""

import io
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sel.errors import UserError
from sel.extras import needs
from sel.files import write_whole
from sel.interop.torch_weights import Network, Params, network_from_torch, network_to_torch

# Where training programs put the state dict, the averaged one first.
_PLACES = ("params_ema", "ema_state_dict", "model_ema", "ema", "params", "state_dict", "model_state_dict", "model")
# What wrappers put before the names: parallel and compiled modules, trainers' attributes, and averages.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "netG.")
_AVERAGES = ("ema_model.", "model_ema.", "ema.")


def load_torch_checkpoint(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """Read published PyTorch weights; nothing in the file is ever run.

    Takes a state dict, or a dict that holds one under one of the usual names; of several, the averaged one
    (`params_ema`, `ema`, ...). Of a file that holds an averaging wrapper, the averaged weights (`ema_model.`) are
    taken. The prefixes of other wrappers (`module.`, `_orig_mod.`) are dropped.

    Args:
      path: the file, as written by `torch.save`.

    Returns:
      The network and its parameters, as `network_from_torch` gives them.

    Raises:
      UserError: if PyTorch is not installed, the file is missing, is damaged or holds anything but weights, or the
        weights fit no network.
    """
    torch, path = _torch(), Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles, which it reads or refuses all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:  # of a disk, which says nothing about the file
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises a dozen kinds, depending on where a file is damaged
        # PyTorch's own words on refused code recommend to run it.
        refused = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more than tensors" if refused else str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: not a PyTorch weights file, or damaged ({reason})") from error
    try:
        return network_from_torch(_arrays(content, torch))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def save_torch_checkpoint(path: str | os.PathLike[str], network: Network, params: Params) -> None:
    """Write parameters as a PyTorch state dict with the published names.

    Args:
      path: the file to write; it appears whole or not at all.
      network: the network.
      params: its parameters.

    Raises:
      UserError: if PyTorch is not installed, or the folder does not exist.
    """
    torch, path = _torch(), Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path}: no such folder {path.parent}")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in network_to_torch(network, params).items()}
    content = io.BytesIO()
    torch.save(tensors, content)
    write_whole(path, content.getvalue())


def _torch() -> Any:
    with needs("torch"):
        import torch
    return torch


def _arrays(content: Any, torch: Any) -> dict[str, np.ndarray]:
    """The state dict in a loaded file, as NumPy arrays without wrappers' prefixes."""
    content = _state_dict(content)
    names = {name: _without(name, _WRAPPERS) for name in content}
    averaged = {name: _without(short, _AVERAGES) for name, short in names.items() if short.startswith(_AVERAGES)}
    arrays: dict[str, np.ndarray] = {}
    for name, short in (averaged or names).items():
        value, short = content[name], _without(short, _WRAPPERS)
        if not isinstance(value, torch.Tensor):
            raise UserError(f"expected tensors only, found {name} of type {type(value).__name__}")
        if short in arrays:
            raise UserError(f"two tensors are called {short}, one of them {name}")
        try:
            # NumPy has no bfloat16.
            arrays[short] = (value.detach().float() if value.is_floating_point() else value.detach()).numpy()
        except (RuntimeError, TypeError) as error:
            raise UserError(f"{name} is no plain array of numbers ({value.layout}, {value.dtype})") from error
    return arrays


def _state_dict(content: Any) -> Mapping[str, Any]:
    """The innermost dict of named tensors."""
    for _ in range(8):  # a dict may hold itself
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in _PLACES if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise UserError(f"expected a dict of named tensors, found {type(content).__name__}")
    return content


def _without(name: str, prefixes: tuple[str, ...]) -> str:
    while name.startswith(prefixes):
        name = name.partition(".")[2]
    return name
