"""One pass over a set of examples on all devices; each counts once."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from fqgan_jax.data.loader import Batch
from fqgan_jax.sharding.mesh import batch_sharding, make_mesh, place, replicated

Step = Callable[[PyTree, Batch], PyTree]


def rows_of_examples(
    step: Step,
    frozen: PyTree,
    batches: Callable[[int], Iterator[Batch]],
    batch_size: int,
    count: int,
    description: str,
) -> Iterator[PyTree]:
    """Results of every example in order, some at a time: trees of NumPy arrays `[n, ...]`, the same on every host.

    Args:
      step: pure function of (frozen, batch) to arrays with a row per example; compiled once, batch split over devices.
      frozen: parameters, whole on every device.
      batches: gives batches of a size, the same on every host, with a "mask" that is 0 where rows do not count.
      batch_size: of the global batch; rounded up to a multiple of the devices.
      count: examples, for the progress bar.
    """
    mesh = make_mesh({"data": -1, "fsdp": 1})
    rows = -(-min(batch_size, count) // mesh.size) * mesh.size
    frozen = place(frozen, replicated(mesh))
    compiled = jax.jit(step, out_shardings=replicated(mesh))
    sharding = batch_sharding(mesh)
    with tqdm(total=count, desc=description, unit="image") as progress:
        pending = None
        for batch in batches(rows):
            started = compiled(frozen, place(batch, sharding)), np.asarray(batch["mask"]) > 0
            # The devices work on this batch while the last one's results are read.
            if pending:
                yield _counted(*pending, progress)
            pending = started
        if pending:
            yield _counted(*pending, progress)


def _counted(results: PyTree, counted: np.ndarray, progress: tqdm) -> PyTree:
    rows = jax.tree.map(lambda leaf: np.asarray(leaf)[counted], results)
    progress.update(int(counted.sum()))
    return rows
