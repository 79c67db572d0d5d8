"""The device mesh and the two shardings every step needs."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fqgan_jax.errors import UserError

BATCH_AXES = ("data", "fsdp")


def make_mesh(axes: dict[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh over all devices (or the given ones) from axis sizes; one -1 takes the devices that are left.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    count = len(devices or jax.devices())
    sizes = dict(axes)
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) == 1:
        sizes[open_axes[0]] = count // math.prod(size for size in sizes.values() if size != -1)
    if math.prod(sizes.values()) != count:
        raise UserError(
            f"The mesh {axes} does not fit {count} device(s): its sizes must multiply to {count} (-1 fills)."
        )
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples spread over all data-like axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())
