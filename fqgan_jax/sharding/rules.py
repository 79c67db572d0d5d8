"""Which dimension of which array is split over which mesh axis."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree


def state_sharding(state: PyTree, mesh: Mesh) -> PyTree:
    """Shardings for parameters, and for optimizer state and moving averages that follow them.

    Each array is split over `fsdp` along its largest dimension that divides evenly; small ones stay whole.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf.shape, mesh.shape["fsdp"])), state)


def _spec(shape: tuple[int, ...], fsdp: int, smallest: int = 2**14) -> PartitionSpec:
    size = 1
    for dimension in shape:
        size *= dimension
    divisible = [axis for axis, dimension in enumerate(shape) if dimension % fsdp == 0]
    if fsdp == 1 or size < smallest or not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*("fsdp" if axis == largest else None for axis in range(len(shape))))
