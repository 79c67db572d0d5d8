"""Parts that run on all devices of all processes: sharding rules, split training steps, a saved state."""

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from fqgan_jax.check.numbers import Numbers
from fqgan_jax.check.parts import GRADIENT_ROUNDING, NotHereError, Part, parts
from fqgan_jax.check.subjects import BATCH_SIZE, StepResult, Subjects, small_step
from fqgan_jax.sharding import processes
from fqgan_jax.sharding.mesh import replicated
from fqgan_jax.sharding.passes import everywhere
from fqgan_jax.sharding.rules import partition
from fqgan_jax.training.checkpointing import Checkpoints

# `data` takes the devices that the others leave.
MESHES = {
    "data": {"data": -1},
    "fsdp": {"data": -1, "fsdp": 2},
    "tensor": {"data": -1, "tensor": 2},
}
SPLIT_STEPS = (("generator", "fsdp"), ("generator", "tensor"), ("tokenizer", "data"))


@parts("sharding rules", bound=0, stored=True)
def sharding_rules(subjects: Subjects) -> Numbers:
    """How many numbers of each model are split, by dimension and axis, on meshes that need not exist here."""
    del subjects
    numbers = {}
    for kind in ("tokenizer", "generator"):
        params = _by_name(small_step(kind).shapes.state.params)
        for axes in ({"fsdp": 4, "tensor": 1}, {"fsdp": 1, "tensor": 4}, {"fsdp": 2, "tensor": 2}):
            split = np.zeros((6, len(axes)))  # dimensions are counted from the last
            for name, leaf in params.items():
                for dimension, axis in zip(range(-leaf.ndim, 0), partition(name, leaf.shape, axes), strict=False):
                    if axis:
                        split[dimension, list(axes).index(axis)] += leaf.size
            numbers[f"{kind}, {axes}"] = split
    return numbers


def compare_split(kind: str, mesh: str, subjects: Subjects) -> tuple[Numbers, Numbers]:
    """Returns losses and gradients on all devices and on one, and the number of parts of the batch.

    Raises:
      NotHereError: the number of devices does not fit the mesh.
    """
    split = _split_step(kind, mesh, subjects)
    single = subjects.training_step(kind, batch_size=_batch_size())
    parts_of_batch = jax.device_count() // MESHES[mesh].get("tensor", 1)
    return (
        {**split.numbers, "parts of the batch": np.array(split.batch_parts)},
        {**single.numbers, "parts of the batch": np.array(parts_of_batch)},
    )


for _kind, _mesh in SPLIT_STEPS:
    parts.add(f"{_kind}'s step, {_mesh}", Part(function=partial(compare_split, _kind, _mesh), bound=GRADIENT_ROUNDING))


@parts("saved and restored state", bound=0)
def restored_state(subjects: Subjects) -> tuple[Numbers, Numbers]:
    """A trained state, saved on one mesh and restored on another, to the last bit."""
    if processes.are_many() and subjects.folder is None:
        raise NotHereError("needs --folder, one that all hosts see")
    one, even = jax.device_count() == 1, jax.device_count() % 2 == 0
    trained = (
        subjects.training_step("generator", batch_size=BATCH_SIZE)
        if one
        else _split_step("generator", "tensor" if even else "data", subjects)
    )
    other = small_step("generator", tuple(MESHES["data"].items()), batch_size=_batch_size())
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        other.shapes.state,
        other.shardings.state,
    )
    with _shared_folder(subjects.folder) as folder:
        checkpoints = Checkpoints(folder, keep=1)
        checkpoints.save(trained.state)
        checkpoints.close()
        checkpoints = Checkpoints(folder, keep=1)  # which reads the files' checksums
        restored = checkpoints.restore(abstract)
        checkpoints.close()
    return _whole(restored, other.mesh), _whole(trained.state, trained.step.mesh)


@contextmanager
def _shared_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder that all processes see, in one that they all name; it is removed when the block is left."""
    folder = Path(tempfile.mkdtemp(prefix="fqgan_check_", dir=parent)) if processes.is_first() else None
    folder = Path(processes.exchange(str(folder))[0])
    try:
        yield folder
        processes.exchange("read")
    finally:
        if processes.is_first():
            shutil.rmtree(folder)


def _split_step(kind: str, mesh: str, subjects: Subjects) -> StepResult:
    """A training step on all devices."""
    axes, count = MESHES[mesh], jax.device_count()
    fixed = math.prod(size for size in axes.values() if size > 0)
    if count == 1 or count % fixed:
        raise NotHereError(f"{count} device{'s' if count > 1 else ''}")
    return subjects.training_step(kind, tuple(axes.items()), batch_size=_batch_size())


def _batch_size() -> int:
    """A batch that all devices can split."""
    return jax.device_count() * math.ceil(BATCH_SIZE / jax.device_count())


def _whole(state: PyTree, mesh: jax.sharding.Mesh) -> Numbers:
    return {name: np.asarray(leaf) for name, leaf in _by_name(everywhere(state, replicated(mesh))).items()}


def _by_name(tree: PyTree) -> dict:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
