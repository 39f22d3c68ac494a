"""Image restoration trained on distributions: a differentiable spatial-entropy loss and a diffusion model for it.

The loss and its relatives are `sel.spatial_entropy_loss` and the other names below; every room is `sel.NAME`. Both are
imported when they are first used, so that `import sel` costs nothing and asks for nothing but JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sel.entropy import (
        CombinedLoss,
        SpatialEntropyLoss,
        combined_loss,
        joint_density,
        sample_neighbor_weights,
        spatial_entropy,
        spatial_entropy_loss,
    )
    from sel.restorer import Restorer

__version__ = "0.1.0"
__all__ = [
    "CombinedLoss",
    "Restorer",
    "SpatialEntropyLoss",
    "combined_loss",
    "joint_density",
    "sample_neighbor_weights",
    "spatial_entropy",
    "spatial_entropy_loss",
]

_ROOMS = [
    "camera",
    "data",
    "diffusion",
    "entropy",
    "errors",
    "extras",
    "files",
    "images",
    "interop",
    "metrics",
    "models",
]
_ROOMS += ["objective", "restoration", "restorer", "scoring", "training", "types"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"sel.{name}")
    if name in __all__:
        value = getattr(importlib.import_module("sel.restorer" if name == "Restorer" else "sel.entropy"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'sel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_ROOMS])
