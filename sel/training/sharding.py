"""Where arrays lie: batches are split over all devices, the state is on each of them."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sel.errors import UserError

BATCH_AXIS = "data"


def make_mesh() -> Mesh:
    """One axis over all devices. Its type is Auto: explicit shardings do not pass through the reshapes of a network."""
    return jax.make_mesh((jax.device_count(),), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int) -> None:
    """A batch must divide evenly.

    Raises:
      UserError: if it does not.
    """
    if batch_size % jax.device_count():
        raise UserError(
            f"config.batch_size must be a multiple of the number of devices, {jax.device_count()}, found {batch_size}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a global batch, split along its first axis over the process's devices."""
    sharding = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
