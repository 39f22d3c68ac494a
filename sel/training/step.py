"""One training step, compiled for all devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from sel.diffusion import Schedule
from sel.entropy import sample_neighbor_weights
from sel.objective import LossFn, draw_step, training_losses
from sel.training.optimizer import update_average
from sel.training.sharding import BATCH_AXIS
from sel.training.state import TrainState

Step = Callable[[TrainState, dict[str, Array], PRNGKeyArray], tuple[TrainState, dict[str, Float[Array, ""]]]]


def make_train_step(
    module: nn.Module,
    schedule: Schedule,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    ema_decay: float,
    ema_every: int,
    neighbor_weights: str | None = None,
) -> Step:
    """Compile `step(state, batch, key) -> (state, metrics)`.

    `batch` holds `x0` and `mu` as uint8 `[b, h, w, c]`, split over the mesh; `key` is the run's, from which the step
    derives its own by its number, so that step n is the same whether it was reached at once or after a restart. t and
    noise are drawn for the whole batch, so that they do not depend on the number of devices, and with
    `neighbor_weights` one set of weights for the loss, from that distribution. The state is donated. Metrics: `loss`
    and `gradient_norm`.
    """

    def mean_loss(params: Any, x0: Array, mu: Array, t: Array, noise: Array, drawn: dict[str, Array]) -> Array:
        # Each device differentiates its own copy; the gradient of this cast adds up theirs.
        params, drawn = jax.tree.map(lambda p: jax.lax.pcast(p, BATCH_AXIS, to="varying"), (params, drawn))

        def noise_fn(x_t, mu, t):
            return module.apply({"params": params}, x_t, mu, t)

        losses = training_losses(
            noise_fn, x0, mu, t, noise, schedule=schedule, loss_fn=functools.partial(loss_fn, **drawn)
        )
        return jax.lax.pmean(losses.mean(), BATCH_AXIS)

    # Written per device: the loss works through a data-dependent list of tiles, which the compiler could not split by
    # itself.
    split, everywhere = PartitionSpec(BATCH_AXIS), PartitionSpec()
    sharded_loss = jax.shard_map(
        mean_loss, mesh=mesh, in_specs=(everywhere, split, split, split, split, everywhere), out_specs=everywhere
    )

    def step(state: TrainState, batch: dict[str, Array], key: PRNGKeyArray):
        x0, mu = (batch[name].astype(jnp.float32) / 255 for name in ("x0", "mu"))
        key = jax.random.fold_in(key, state.step)
        t, noise = draw_step(key, x0.shape, schedule)
        drawn = {}
        if neighbor_weights:
            drawn["neighbor_weights"] = sample_neighbor_weights(jax.random.fold_in(key, 2), neighbor_weights)
        loss, gradients = jax.value_and_grad(sharded_loss)(state.params, x0, mu, t, noise, drawn)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        done = state.step + 1
        average = update_average(state.average, params, done, decay=ema_decay, every=ema_every)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
        return TrainState(done, params, average, opt_state), metrics

    return jax.jit(step, donate_argnums=0)
