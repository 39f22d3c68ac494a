"""The optimizer of a configuration, and the running average of parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def make_learning_rate(options: Mapping[str, Any], num_steps: int) -> optax.Schedule:
    """Linear warm-up to `learning_rate` in `warmup_steps`, then a cosine to `end_learning_rate` at `num_steps`."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if options["warmup_steps"] else options["learning_rate"],
        peak_value=options["learning_rate"],
        warmup_steps=options["warmup_steps"],
        decay_steps=num_steps,
        end_value=options["end_learning_rate"],
    )


def make_optimizer(options: Mapping[str, Any], learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW with an optional bound on the global norm of the gradient (`clip_norm`, 0 for none)."""
    adamw = optax.adamw(learning_rate, b1=options["b1"], b2=options["b2"], weight_decay=options["weight_decay"])
    return optax.chain(optax.clip_by_global_norm(options["clip_norm"]), adamw) if options["clip_norm"] else adamw


def update_average(average: Any, params: Any, step: jax.Array, *, decay: float, every: int) -> Any:
    """Exponential moving average: every `every` steps, the n-th time with weight 1 - min(decay, (1 + n)/(10 + n)).

    The published code (ema_pytorch) warms up in another way: it copies the parameters for 100 steps, and then takes the
    decay min(decay, 1 - (step - 100)^(-2/3)). At its 0.995 every 10 steps both are constant long before step 20,000.
    """
    moves = step // every
    weight = jnp.where(step % every == 0, 1 - jnp.minimum(decay, (1 + moves) / (10 + moves)), 0.0)
    return jax.tree.map(lambda a, p: a + weight.astype(a.dtype) * (p - a), average, params)
