"""Where arrays lie: batches are split over all devices; the state is on each of them, or split over some, too."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from sel.errors import UserError

# The devices as a rectangle: parameters are split along one side of it, batches along both.
REPLICA, SHARD = AXES = ("replica", "shard")

# A parameter smaller than this is not worth a message.
_SMALLEST_SPLIT = 2**14


def make_mesh(parameter_shards: int = 1) -> Mesh:
    """All devices, as `[replicas of the state, parts of it]`; 0 parts are as many as there are devices.

    The axes are of type Auto: explicit shardings do not pass through the reshapes of a network.

    Raises:
      UserError: if the devices do not divide evenly.
    """
    count = jax.device_count()
    parts = parameter_shards or count
    if parts < 1 or count % parts:
        raise UserError(
            f"config.compute.parameter_shards must divide the number of devices, {count}, found {parameter_shards}"
        )
    return jax.make_mesh((count // parts, parts), AXES, axis_types=(AxisType.Auto,) * 2)


def check_batch_size(batch_size: int, accumulate: int) -> None:
    """Every device must get the same number of images in each of the parts of a batch that it takes in turn.

    Raises:
      UserError: if it does not.
    """
    parts = jax.device_count() * accumulate
    if batch_size % parts:
        by = f"{jax.device_count()} devices" + (f" x config.compute.accumulate {accumulate}" if accumulate > 1 else "")
        raise UserError(f"config.batch_size must be a multiple of {parts} ({by}), found {batch_size}")


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """A part of the first axis on every device."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def state_shardings(state: Any, mesh: Mesh | AbstractMesh) -> Any:
    """The sharding of every array of a state, from its shape alone.

    The longest axis that divides evenly is split over the mesh axis `shard`. A parameter, its average and its moments
    in the optimizer have one shape, and so lie alike, whatever the optimizer.

    Args:
      state: arrays, or `jax.ShapeDtypeStruct`s.
      mesh: of `make_mesh`.
    """
    return jax.tree.map(lambda x: NamedSharding(mesh, _spec(x.shape, mesh.shape[SHARD])), state)


def split_axis(spec: PartitionSpec) -> int | None:
    """The axis that is split over `shard`."""
    return next((axis for axis, name in enumerate(spec) if name == SHARD), None)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The images of this process's part of a global batch, split over the process's devices."""
    images = {name: batch[name] for name in ("x0", "mu")}
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split_batch(mesh), x), images)


def gather(tree: Any, mesh: Mesh) -> Any:
    """Arrays whole on every device, so that each process can read them. All processes take part."""
    if all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
        return tree
    return jax.jit(_same, out_shardings=replicated(mesh))(tree)


def _same(tree: Any) -> Any:
    return tree


def _spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    lengths = {axis: length for axis, length in enumerate(shape) if length % parts == 0}
    if parts == 1 or not lengths or np.prod(shape) < _SMALLEST_SPLIT:
        return PartitionSpec()
    longest = max(lengths, key=lambda axis: lengths[axis])
    return PartitionSpec(*[SHARD if axis == longest else None for axis in range(len(shape))])
