"""Networks that predict the noise of a diffusion state (Flax Linen)."""

from sel.models.nafnet import ConditionalNAFNet
from sel.models.unet import ConditionalUNet

__all__ = ["ConditionalNAFNet", "ConditionalUNet"]
