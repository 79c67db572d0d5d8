"""A state that many processes share, in the memory of the first one and back again.

Only the first process writes to object storage: no folder is shared in which every process could write its part.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from fqgan_jax.sharding import processes


def gather(tree: PyTree) -> PyTree | None:
    """Returns a tree of global arrays as NumPy arrays in the first process, and None in the others.

    All processes call it. One array after the other is whole on every device, so there must be room for the largest.
    """
    leaves, structure = jax.tree.flatten(tree)
    first = processes.is_first()
    kept = [whole if first else None for whole in map(_whole, leaves)]
    return jax.tree.unflatten(structure, kept) if first else None


def scatter(tree: PyTree | None, abstract: PyTree) -> PyTree:
    """Returns the first process's NumPy arrays as global arrays: the inverse of `gather`.

    Args:
      tree: the arrays in the first process; what the others give is not looked at.
      abstract: shapes, types and shardings of the result, in every process.
    """
    shapes, structure = jax.tree.flatten(abstract)
    first = processes.is_first()
    leaves = structure.flatten_up_to(tree) if first else [np.zeros(each.shape, each.dtype) for each in shapes]
    return jax.tree.unflatten(structure, map(_global, leaves, shapes))


def _whole(leaf: jax.Array) -> np.ndarray:
    if leaf.is_fully_replicated:
        return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def _global(leaf: np.ndarray, abstract: jax.ShapeDtypeStruct) -> jax.Array:
    content = np.ascontiguousarray(leaf, abstract.dtype)
    # As bytes: the sum by which it comes keeps every bit of them, of floats it would not.
    same = multihost_utils.broadcast_one_to_all(content.reshape(-1).view(np.uint8))
    content = np.asarray(same, np.uint8).view(abstract.dtype).reshape(abstract.shape)
    return jax.make_array_from_callback(abstract.shape, abstract.sharding, content.__getitem__)
