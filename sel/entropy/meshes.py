"""The loss of images that are divided among devices."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sel.entropy.options import DensityOptions


def on_any_mesh(
    function: Callable[..., Any],
    options: DensityOptions,
    images: Mapping[str, Any],
    out_spec: Callable[[PartitionSpec], PartitionSpec],
    **arrays: Any,
) -> Any:
    """`function(options, images, **arrays)`, also for images sharded over Explicit axes of a mesh.

    There JAX demands that every operation has one obvious sharding, which windows and tiles do not have: inside, such
    axes are Auto, so that the compiler decides.

    Args:
      function: what to compute.
      options: of the estimate; their arrays are arrays of the function, too.
      images: by name.
      out_spec: from the sharding of an image to that of the result.
      **arrays: the others, None or an array each.

    Returns:
      What the function returns, sharded as its images are.
    """
    image = next(iter(images.values()))
    sharding = image.sharding if _is_concrete(image) else jax.typeof(image).sharding
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else jax.sharding.get_abstract_mesh()
    mesh = jax.sharding.get_abstract_mesh() if mesh.empty else mesh
    explicit = tuple(
        name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit
    )
    if not explicit:
        return function(options, images, **arrays)
    held = {field.name: getattr(options, field.name) for field in fields(options)}
    held = {name: value for name, value in held.items() if any(map(_is_array, jax.tree.leaves(value)))}

    def inside(images, held, arrays):
        return function(replace(options, **held), images, **arrays)

    out = NamedSharding(mesh, out_spec(jax.typeof(image).sharding.spec))
    return jax.sharding.auto_axes(inside, axes=explicit, out_sharding=out)(dict(images), held, arrays)


def of_batch(spec: PartitionSpec) -> PartitionSpec:
    """The sharding of one value per image."""
    return PartitionSpec(*spec[:-3])


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _is_concrete(value: Any) -> bool:
    return isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
