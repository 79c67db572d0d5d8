"""The device mesh and the two shardings every step needs."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from fqgan_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSlice:
    """Which slice of each global batch a host reads.

    Attributes:
      index: number of the slice, from 0.
      count: number of slices of a global batch.
    """

    index: int = 0
    count: int = 1


WHOLE_BATCH = BatchSlice()


def make_mesh(axes: dict[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of `AXES` over all devices (or the given ones); a size of -1 takes the rest, no size is 1.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    count = len(devices or jax.devices())
    sizes = dict.fromkeys(AXES, 1) | dict(axes)
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) == 1:
        sizes[open_axes[0]] = count // math.prod(size for size in sizes.values() if size != -1)
    if math.prod(sizes.values()) != count:
        raise UserError(
            f"The mesh {axes} does not fit {count} device(s): its sizes must multiply to {count} (-1 fills)."
        )
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: examples spread over `BATCH_AXES`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def keep_batch_sharded(x: Array) -> Array:
    """Keeps the examples of an activation spread as the batch is, if a mesh is in effect (see `compiled_step`).

    Without it the compiler may gather the examples instead of weights that are split over `fsdp`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AxisType.Manual in mesh.axis_types:  # within `shard_map` every device has its examples alone
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """Returns the number of parts into which a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_slice(mesh: Mesh) -> BatchSlice:
    """Returns the slice of each global batch that this host's devices hold.

    Hosts whose devices split the same examples over `tensor` read the same slice.

    Raises:
      UserError: the devices of a host hold no slice of their own.
    """
    shards = batch_shards(mesh)
    indices = batch_sharding(mesh).devices_indices_map((shards,))
    held: dict[int, set[int]] = {}
    for device, (part,) in indices.items():
        held.setdefault(device.process_index, set()).update(range(shards)[part])  # type: ignore[attr-defined]
    slices = sorted({tuple(sorted(part)) for part in held.values()})
    if sum(map(len, slices)) != shards or len(set(map(len, slices))) > 1:
        raise UserError(
            f"The mesh {dict(mesh.shape)} spreads the batch unevenly over {len(held)} processes: choose a size of "
            "tensor that divides the devices of a process, or is a multiple of them."
        )
    return BatchSlice(index=slices.index(tuple(sorted(held[jax.process_index()]))), count=len(slices))


def put_global(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Returns global arrays of values that every host holds whole; each host transfers the parts of its devices."""

    def put(x):
        return jax.make_array_from_process_local_data(sharding, x, np.shape(x))

    return jax.tree.map(put, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())
