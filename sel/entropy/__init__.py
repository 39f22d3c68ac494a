"""Differentiable spatial entropy: joint densities of (intensity, neighbour mean), and divergences between them."""

from sel.entropy.loss import joint_density, spatial_entropy, spatial_entropy_loss

__all__ = ["joint_density", "spatial_entropy", "spatial_entropy_loss"]
