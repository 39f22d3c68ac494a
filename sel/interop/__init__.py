"""Weights of the published PyTorch implementation."""

from sel.extras import needs

with needs("use"):
    from sel.interop.torch_files import load_torch_checkpoint, save_torch_checkpoint
    from sel.interop.torch_weights import network_from_torch, network_to_torch

__all__ = ["load_torch_checkpoint", "network_from_torch", "network_to_torch", "save_torch_checkpoint"]
