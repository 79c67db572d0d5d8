"""Which dimension of which array is split over which mesh axis."""

import logging
import math
import re

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from fqgan_jax.errors import UserError

# The end of a parameter's path, and the axes that split its last dimensions. Parameters stacked over K or over depth
# have more dimensions before, which no rule splits. In each pair of layers the first is split by its outputs and the
# second by its inputs, so that a pair costs one sum over `tensor` (Shoeybi et al. 2019).
RULES = (
    (r"blocks/qkv/kernel", (None, "tensor")),  # attention heads
    (r"blocks/qkv/bias", ("tensor",)),
    (r"blocks/out/kernel", ("tensor", None)),
    (r"blocks/(gate|up|mlp_in)/kernel", (None, "tensor")),  # hidden channels of the MLP
    (r"blocks/mlp_in/bias", ("tensor",)),
    (r"blocks/(down|mlp_out)/kernel", ("tensor", None)),
    (r"code_tables", ("tensor", None)),  # the vocabulary
    (r"outputs", (None, "tensor")),
)
# Large parameters that are whole on every device of `tensor` on purpose.
REPLICATED = (
    r"(encoder|decoder)/.*",  # convolutions, and attention over channels that convolutions have mixed
    r"conv\d+/kernel",  # the discriminators'
    r"conv_out/kernel",
    r"expand\d+/kernel",  # the first layer of a feature head
    r"positions",
    r"codebooks",  # every device compares its tokens with all entries
    r"aggregate/kernel",
    r"class_table",
    r"scale",
)
SMALLEST = 2**14  # elements of the arrays that `fsdp` splits

log = logging.getLogger(__name__)


def state_sharding(state: PyTree, mesh: Mesh) -> PyTree:
    """Shardings for parameters, and for optimizer state and moving averages, whose paths end alike.

    `RULES` say what is split over `tensor`. Of the other dimensions the largest that divides is split over `fsdp`;
    if none does, and in small arrays, none is. If `tensor` has more than one device, a large parameter that neither a
    rule nor `REPLICATED` names is logged as a warning: it costs memory and repeats work on every device of `tensor`.

    Raises:
      UserError: a dimension that a rule splits does not divide.
    """
    if mesh.shape["tensor"] > 1:
        unnamed = unnamed_parameters(state)
        if unnamed:
            log.warning(
                "mesh.tensor=%d does not split these parameters, of which every device holds all: %s. Name them in "
                "RULES or REPLICATED of fqgan_jax/sharding/rules.py.",
                mesh.shape["tensor"],
                ", ".join(f"{name} {list(shape)}" for name, shape in unnamed.items()),
            )

    def place(path, leaf) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition(name, leaf.shape, dict(mesh.shape)))

    return jax.tree_util.tree_map_with_path(place, state)


def unnamed_parameters(state: PyTree) -> dict[str, tuple[int, ...]]:
    """Returns name and shape of the large parameters that neither `RULES` nor `REPLICATED` name."""
    patterns = "|".join([pattern for pattern, _ in RULES] + list(REPLICATED))
    unnamed = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(state, "params", state)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if math.prod(leaf.shape) >= SMALLEST and not re.search(f"(^|/)({patterns})$", name):
            unnamed[name] = leaf.shape
    return unnamed


def partition(name: str, shape: tuple[int, ...], sizes: dict[str, int]) -> PartitionSpec:
    """The split of one array, by its path and the sizes of the mesh axes; see `state_sharding`."""
    spec = [None] * len(shape)
    rule, axes = next((rule for rule in RULES if re.search(f"(^|/){rule[0]}$", name)), (None, ()))
    for place, axis in enumerate(axes, len(shape) - len(axes)):
        if axis and sizes[axis] > 1:
            if shape[place] % sizes[axis]:
                raise UserError(
                    f"mesh.{axis}={sizes[axis]} does not divide dimension {place} of parameter {name} {list(shape)}, "
                    f"which the rule {rule!r} of sharding/rules.py splits: choose another size of mesh.{axis}."
                )
            spec[place] = axis
    free = [place for place in range(len(shape)) if spec[place] is None and shape[place] % sizes["fsdp"] == 0]
    if sizes["fsdp"] > 1 and free and math.prod(shape) >= SMALLEST:
        spec[max(free, key=lambda place: shape[place])] = "fsdp"
    return PartitionSpec(*spec) if any(spec) else PartitionSpec()
