"""Differentiable spatial entropy: joint densities of (intensity, neighbour mean), and divergences between them."""

from sel.entropy.loss import combined_loss, joint_density, spatial_entropy, spatial_entropy_loss
from sel.entropy.neighborhood import sample_neighbor_weights

__all__ = ["combined_loss", "joint_density", "sample_neighbor_weights", "spatial_entropy", "spatial_entropy_loss"]
