"""All that a training step changes: arrays only, so that it can be donated, sharded, saved and restored as it is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import PRNGKeyArray


@struct.dataclass
class TrainState:
    """Parameters and what moves them. Types are open: JAX fills such a tree with shapes, shardings or nothing, too.

    Attributes:
      step: steps done, an int32 scalar.
      params: float32 parameters of the network.
      average: their exponential moving average, which evaluation uses.
      opt_state: the optimizer's own state.
    """

    step: Any
    params: Any
    average: Any
    opt_state: optax.OptState


def init_params(key: PRNGKeyArray, module: nn.Module) -> Any:
    """Fresh parameters of a network for colour images; their shapes do not depend on the size of the images."""
    image = jnp.zeros((1, 16, 16, 3))
    return module.init(key, image, image, jnp.ones(1, jnp.int32))["params"]


def abstract_params(module: nn.Module) -> Any:
    """Shapes and types of the parameters of a network."""
    return _abstract_params(module, repr(module))


# Kept: to find them takes half a second. The name tells a width of 8 from one of 8.0, which are equal and not alike.
@functools.lru_cache(maxsize=16)
def _abstract_params(module: nn.Module, name: str) -> Any:
    return jax.eval_shape(functools.partial(init_params, module=module), jax.random.key(0))


def init_state(key: PRNGKeyArray, module: nn.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return first_state(init_params(key, module), optimizer)


def abstract_state(module: nn.Module, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes and types of the state."""
    return jax.eval_shape(functools.partial(first_state, optimizer=optimizer), abstract_params(module))


def first_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step from given parameters."""
    # A copy: the step donates its state, and one buffer must not be donated twice.
    average = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(params))
