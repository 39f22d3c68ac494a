"""Image restoration trained on distributions: a differentiable spatial-entropy loss and a diffusion model for it.

`import sel` brings the loss. `sel.diffusion`, `sel.models` and the other rooms are imported when they are first used.
"""

import importlib
from typing import Any

from sel.entropy import (
    CombinedLoss,
    SpatialEntropyLoss,
    combined_loss,
    joint_density,
    sample_neighbor_weights,
    spatial_entropy,
    spatial_entropy_loss,
)

__version__ = "0.1.0"
__all__ = [
    "CombinedLoss",
    "SpatialEntropyLoss",
    "combined_loss",
    "joint_density",
    "sample_neighbor_weights",
    "spatial_entropy",
    "spatial_entropy_loss",
]

_ROOMS = ("data", "diffusion", "entropy", "interop", "metrics", "models", "training")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"sel.{name}")
    raise AttributeError(f"module 'sel' has no attribute {name!r}")
