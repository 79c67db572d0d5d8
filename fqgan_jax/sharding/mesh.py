"""The device mesh and the two shardings every step needs."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fqgan_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")


def make_mesh(axes: dict[str, int]) -> Mesh:
    """Mesh over all devices from axis sizes, e.g. {"data": -1, "fsdp": 1}; one -1 takes the devices that are left.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    count = jax.device_count()
    sizes = dict(axes)
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) == 1:
        sizes[open_axes[0]] = count // math.prod(size for size in sizes.values() if size != -1)
    if math.prod(sizes.values()) != count:
        raise UserError(f"The mesh {axes} does not fit {count} device(s): its sizes must multiply to {count} (-1 fills).")
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples spread over all data-like axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())
