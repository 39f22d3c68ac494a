"""One training step, compiled for all devices."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from sel.objective import Draws, Objective, draw_step, training_losses
from sel.training.optimizer import UpdateAverage
from sel.training.sharding import AXES, REPLICA, SHARD, replicated, split_axis
from sel.training.state import TrainState

Step = Callable[[TrainState, dict[str, Array], PRNGKeyArray], tuple[TrainState, dict[str, Float[Array, ""]]]]


def make_train_step(
    module: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    update_average: UpdateAverage,
    mesh: Mesh,
    shardings: TrainState,
    *,
    accumulate: int = 1,
) -> Step:
    """Compile `step(state, batch, key) -> (state, metrics)`.

    `batch` holds `x0` and `mu` as uint8 `[b, h, w, c]`, split over the mesh; `key` is the run's, from which the step
    derives its own by its number, so that step n is the same whether it was reached at once or after a restart. t and
    noise are drawn for the whole batch, so that they depend neither on the number of devices nor on `accumulate`. The
    state is donated. Metrics: `loss`, `gradient_norm`, `update_norm`. Where the first or the second is not finite, the
    step counts as done and changes nothing else.

    Args:
      module: the network.
      objective: what is minimized.
      optimizer: what minimizes it.
      update_average: from the average, the new parameters and the number of steps done to the new average.
      mesh: of `make_mesh`.
      shardings: of the state, as `state_shardings` gives them.
      accumulate: parts of its images that each device takes one after another, which needs less memory.
    """
    device_gradients = make_device_gradients(module, objective, shardings.params, accumulate)
    split, everywhere = PartitionSpec(AXES), PartitionSpec()
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings.params)
    # Written per device: the loss works through a data-dependent list of tiles, which the compiler could not split by
    # itself.
    gradients_of = jax.shard_map(
        device_gradients,
        mesh=mesh,
        in_specs=(specs, split, split, Draws(split, split, everywhere)),  # type: ignore[arg-type]
        out_specs=(everywhere, specs),
    )

    def step(state: TrainState, batch: dict[str, Array], key: PRNGKeyArray):
        x0, mu = (batch[name].astype(jnp.float32) / 255 for name in ("x0", "mu"))
        draws = draw_step(jax.random.fold_in(key, state.step), objective, x0.shape)
        loss, gradients = gradients_of(state.params, x0, mu, draws)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        done = state.step + 1
        new = TrainState(done, params, update_average(state.average, params, done), opt_state)
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        skipped = dataclasses.replace(state, step=done)
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, skipped)
        return new, {"loss": loss, "gradient_norm": norm, "update_norm": optax.tree.norm(updates)}

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


def make_device_gradients(module: nn.Module, objective: Objective, shardings: Any, accumulate: int):
    """What one device does: `(its parts of params, x0, mu and draws) -> (mean loss, its parts of the gradient)`.

    Parameters that are split are gathered once for a step, and their gradients added up once and split again, however
    many parts a batch is taken in.
    """

    def part_loss(params: Any, x0: Array, mu: Array, draws: Draws) -> Array:
        def noise_fn(x_t, mu, t):
            return module.apply({"params": params}, x_t, mu, t)

        return training_losses(objective, noise_fn, x0, mu, draws).mean()

    def device_gradients(params: Any, x0: Array, mu: Array, draws: Draws) -> tuple[Array, Any]:
        params = jax.tree.map(lambda p, sharding: _whole(p, split_axis(sharding.spec)), params, shardings)
        shared = jax.tree.map(_own, draws.shared)

        def gradients(x0, mu, t, noise):
            return jax.value_and_grad(part_loss)(params, x0, mu, Draws(t, noise, shared))

        images = (x0, mu, draws.t, draws.noise)
        if accumulate == 1:
            loss, summed = gradients(*images)
        else:
            parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), images)
            loss, summed = _sum_over(gradients, parts)
        count = jax.lax.axis_size(AXES) * accumulate
        summed = jax.tree.map(lambda g, sharding: _added(g, split_axis(sharding.spec)) / count, summed, shardings)
        return jax.lax.psum(loss, AXES) / count, summed

    return device_gradients


def _sum_over(function: Callable[..., Any], parts: tuple[Array, ...]) -> Any:
    """Sum of `function(*part)` over the leading axis."""

    def add(total: Any, part: tuple[Array, ...]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*part)), None

    first, rest = jax.tree.map(lambda x: x[0], parts), jax.tree.map(lambda x: x[1:], parts)
    return jax.lax.scan(add, function(*first), rest)[0]


def _whole(param: Array, axis: int | None) -> Array:
    """A device's own copy, so that it differentiates by itself and gradients are added up once."""
    if axis is None:
        return _own(param)
    return jax.lax.pcast(jax.lax.all_gather(param, SHARD, axis=axis, tiled=True), REPLICA, to="varying")


def _own(x: Array) -> Array:
    return jax.lax.pcast(x, AXES, to="varying")


def _added(gradient: Array, axis: int | None) -> Array:
    if axis is None:
        return jax.lax.psum(gradient, AXES)
    part = jax.lax.psum_scatter(gradient, SHARD, scatter_dimension=axis, tiled=True)
    return jax.lax.psum(part, REPLICA)
