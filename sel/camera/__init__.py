"""A camera in low light, as a differentiable function: a bright photograph becomes a dark one."""

from sel.camera.jpeg import jpeg
from sel.camera.lowlight import darken, linear_to_srgb, sample_camera, srgb_to_linear

__all__ = ["darken", "jpeg", "linear_to_srgb", "sample_camera", "srgb_to_linear"]
