"""Where use meets: a network, its parameters and a schedule become a function from dark images to bright ones."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from sel import diffusion
from sel.diffusion import Schedule

Images = Float[Array, "b h w c"]
Restore = Callable[[PRNGKeyArray, Any, Images], Images]


def make_restore(
    module: nn.Module, schedule: Schedule, *, method: str = "posterior", clip_x0: tuple[float, float] | None = None
) -> Restore:
    """Compile `restore(key, params, mu) -> x0_hat`, clipped to [0, 1].

    Args:
      module: the noise predictor; `module.apply({"params": params}, x_t, mu, t)`.
      schedule: the diffusion that it was trained with.
      method: `posterior`, `sde` or `ode`, see `sel.diffusion.sample`.
      clip_x0: range of the clean estimate inside the `posterior` sampler, or None.

    Returns:
      A jitted function. It compiles once for each shape of `mu`.
    """

    @jax.jit
    def restore(key: PRNGKeyArray, params: Any, mu: Images) -> Images:
        def noise_fn(x_t, mu, t):
            return module.apply({"params": params}, x_t, mu, t)

        x0 = diffusion.sample(key, noise_fn, mu, schedule=schedule, method=method, clip_x0=clip_x0)
        return jnp.clip(cast(Images, x0), 0, 1)

    return restore
