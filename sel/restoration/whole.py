"""A network, its parameters and a schedule as a function from dark images to bright ones."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from sel import diffusion
from sel.diffusion import Sampler, Schedule

Images = Float[Array, "b h w c"]
Restore = Callable[[PRNGKeyArray, Any, Images], Images]


def make_restore(
    module: nn.Module, schedule: Schedule, *, sampler: Sampler | str = "posterior", num_steps: int | None = None
) -> Restore:
    """Compile `restore(key, params, mu) -> x0_hat`, clipped to [0, 1].

    Args:
      module: the noise predictor; `module.apply({"params": params}, x_t, mu, t)`.
      schedule: the diffusion that it was trained with.
      sampler: see `sel.diffusion.sample`.
      num_steps: of the sampler; None: as many as the diffusion has.

    Returns:
      A jitted function. It compiles once for each shape of `mu`.

    Raises:
      ValueError: an unknown sampler, or `num_steps` out of range.
    """
    sampler = diffusion.make_sampler(sampler)
    num_steps = len(diffusion.sampling_times(schedule, num_steps=num_steps).t)

    @jax.jit
    def restore(key: PRNGKeyArray, params: Any, mu: Images) -> Images:
        def noise_fn(x_t, mu, t):
            return module.apply({"params": params}, x_t, mu, t)

        x0 = diffusion.sample(key, noise_fn, mu, schedule=schedule, sampler=sampler, num_steps=num_steps)
        return jnp.clip(cast(Images, x0), 0, 1)

    return restore
