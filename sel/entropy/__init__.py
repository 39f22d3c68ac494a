"""Differentiable spatial entropy: joint densities of (intensity, neighbour mean), and divergences between them."""

from sel.entropy.combined import CombinedLoss, combined_loss
from sel.entropy.loss import (
    SpatialEntropyLoss,
    joint_density,
    spatial_entropy,
    spatial_entropy_loss,
)
from sel.entropy.neighborhood import sample_neighbor_weights
from sel.entropy.options import DensityOptions

__all__ = [
    "CombinedLoss",
    "DensityOptions",
    "SpatialEntropyLoss",
    "combined_loss",
    "joint_density",
    "sample_neighbor_weights",
    "spatial_entropy",
    "spatial_entropy_loss",
]
