"""One pass over a set of examples on many devices."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from tqdm import tqdm

from fqgan_jax.sharding.mesh import BATCH_AXES, batch_sharding, make_mesh, put_global, replicated

Batch = dict[str, np.ndarray]
DeviceBatch = dict[str, jax.Array]
Step = Callable[[PyTree, DeviceBatch], PyTree]
Tag = TypeVar("Tag")


def rows_of_examples(
    step: Step,
    params: PyTree,
    batches: Callable[[int], Iterator[Batch]],
    *,
    batch_size: int,
    count: int,
    title: str,
    mesh: Mesh | None = None,
) -> Iterator[PyTree]:
    """Yields the results of all examples in order: trees of NumPy arrays `[n, ...]`, the same on every host.

    Args:
      step: pure function of (params, batch) to arrays with a row per example; compiled once, batch split over devices.
      params: replicated on every device.
      batches: gives batches of a size, the same on every host, with a "mask" that is 0 for rows that do not count.
      batch_size: of the global batch; rounded up to a multiple of the devices.
      count: examples, for the progress bar.
      title: of the progress bar.
      mesh: by default all devices.
    """
    if mesh is None:
        mesh = make_mesh({"data": -1, "fsdp": 1})
    size = -(-min(batch_size, count) // mesh.size) * mesh.size
    masked = ((batch, np.asarray(batch["mask"]) > 0) for batch in batches(size))
    with tqdm(total=count, desc=title, unit="image", leave=None) as progress:
        for rows, counted in rows_of_batches(step, params, masked, mesh=mesh):
            progress.update(int(counted.sum()))
            yield jax.tree.map(lambda leaf, counted=counted: leaf[counted], rows)


def rows_of_batches(
    step: Step, params: PyTree, batches: Iterator[tuple[Batch, Tag]], *, mesh: Mesh
) -> Iterator[tuple[PyTree, Tag]]:
    """Yields the results of every batch in order, as NumPy arrays, each with what came with the batch.

    `batches` are of one size that the mesh's devices divide, the same on every host of the mesh.
    """
    params = everywhere(params, replicated(mesh))
    compiled = jax.jit(step, out_shardings=replicated(mesh))
    sharding = batch_sharding(mesh)
    pending: tuple[PyTree, Tag] | None = None
    for batch, tag in batches:
        started = compiled(params, put_global(batch, sharding)), tag
        # The devices work on this batch while the previous one's results are read.
        if pending:
            yield jax.tree.map(np.asarray, pending[0]), pending[1]
        pending = started
    if pending:
        yield jax.tree.map(np.asarray, pending[0]), pending[1]


def everywhere(arrays: PyTree, whole: NamedSharding) -> PyTree:
    """Returns the same arrays on every device, whether each host holds all of one or, as in training, its part."""
    if jax.process_count() == 1:
        return jax.device_put(arrays, whole)

    def as_global(leaf):
        is_held = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        return put_global(leaf, whole) if is_held else leaf

    global_arrays = jax.tree.map(as_global, arrays)
    # In one program: one for each array, on many processes with CPUs, can wait for each other forever.
    return jax.jit(_same, out_shardings=whole)(global_arrays)


def _same(arrays: PyTree) -> PyTree:
    return arrays


def on_each_device(step: Step, mesh: Mesh) -> Step:
    """Returns a step that each device applies to its rows alone.

    A row's result then does not depend on the number of devices.
    """
    rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
    return jax.shard_map(step, mesh=mesh, in_specs=(whole, rows), out_specs=rows, check_vma=False)
