"""A state that many processes share, in the memory of the first one and back again.

Only the first process writes to object storage: no folder is shared in which every process could write its part.
"""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from fqgan_jax.sharding import processes
from fqgan_jax.sharding.passes import everywhere

GROUP = 2**30  # bytes that are gathered at a time, on every device


def gather(tree: PyTree) -> PyTree | None:
    """Returns a tree of global arrays as NumPy arrays in the first process, and None in the others; all call it."""
    leaves, structure = jax.tree.flatten(tree)
    kept: list[np.ndarray] = []
    for group in _groups(leaves):
        mesh = group[0].sharding.mesh
        whole = jax.block_until_ready(everywhere(list(group), NamedSharding(mesh, PartitionSpec())))
        kept += map(np.asarray, whole) if processes.is_first() else ()
    return jax.tree.unflatten(structure, kept) if processes.is_first() else None


def scatter(tree: PyTree | None, abstract: PyTree) -> PyTree:
    """Returns the first process's NumPy arrays as global arrays: the inverse of `gather`.

    Args:
      tree: the arrays in the first process; None in the others.
      abstract: shapes, types and shardings of the result, in every process.
    """
    shapes, structure = jax.tree.flatten(abstract)
    leaves = shapes if tree is None else structure.flatten_up_to(tree)  # type: ignore[attr-defined]
    found = []
    for group, given in zip(_groups(shapes), _groups(leaves), strict=True):
        # As bytes: they are added to zeros on the way, which keeps every bit of integers.
        same = multihost_utils.broadcast_one_to_all([_bytes(leaf) for leaf in given])
        found += [_global(np.asarray(content), leaf) for content, leaf in zip(same, group, strict=True)]
    return jax.tree.unflatten(structure, found)


def _groups(leaves: Sequence) -> Iterator[Sequence]:
    """Splits leaves, as long as they are together, into groups of at most `GROUP` bytes, or of one larger leaf."""
    start, size = 0, 0
    for index, leaf in enumerate(leaves):
        nbytes = leaf.size * leaf.dtype.itemsize
        if index > start and size + nbytes > GROUP:
            yield leaves[start:index]
            start, size = index, 0
        size += nbytes
    if leaves:
        yield leaves[start:]


def _bytes(leaf: np.ndarray | jax.ShapeDtypeStruct) -> np.ndarray:
    content = np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else np.ascontiguousarray(leaf)
    return content.reshape(-1).view(np.uint8)


def _global(content: np.ndarray, abstract: jax.ShapeDtypeStruct) -> jax.Array:
    whole = content.view(abstract.dtype).reshape(abstract.shape)
    return jax.make_array_from_callback(abstract.shape, abstract.sharding, whole.__getitem__)
