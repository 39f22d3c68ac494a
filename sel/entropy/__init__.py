"""Differentiable spatial entropy: densities of (intensity, neighbour mean) by kernel density estimation, and divergences between them."""

from sel.entropy.loss import joint_density, spatial_entropy, spatial_entropy_loss

__all__ = ["joint_density", "spatial_entropy", "spatial_entropy_loss"]
