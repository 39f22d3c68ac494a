"""Networks that predict the noise of a diffusion state (Flax Linen)."""

from sel.extras import needs

with needs("use"):
    from flax import linen as nn

    from sel.models.nafnet import ConditionalNAFNet
    from sel.models.unet import ConditionalUNet

# By the names that configurations call them. A network is a Flax module `(x_t, mu, t) -> noise`.
MODELS: dict[str, type[nn.Module]] = {"nafnet": ConditionalNAFNet, "unet": ConditionalUNet}

__all__ = ["MODELS", "ConditionalNAFNet", "ConditionalUNet"]
