"""Which dimension of which array is split over which mesh axis."""

import dataclasses
import logging
import math
import re

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from fqgan_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How parameters of one name are split.

    Attributes:
      pattern: regular expression of the end of the parameter's path.
      axes: mesh axes of the parameter's last dimensions. Parameters stacked over K or over depth have more dimensions
        before, which no rule splits.
      modules: kind of model to a regular expression of its modules that have such a parameter; "" is the whole model.
        If a model of that kind has such a module, the rule must match one of its parameters. The rule applies to
        models of other kinds too, but need not match there.
    """

    pattern: str
    axes: tuple[str | None, ...]
    modules: dict[str, str]

    def matches(self, name: str) -> bool:
        """Returns whether the rule is for the parameter of this path."""
        return re.search(f"(^|/){self.pattern}$", name) is not None


TOKENIZER_BLOCKS = {"tokenizer": r"(adapter|feature_predictors_\d+)/transformer"}
GENERATOR_BLOCKS = {"generator": r"(backbone|head)"}
ALL_BLOCKS = TOKENIZER_BLOCKS | GENERATOR_BLOCKS
GENERATOR = {"generator": ""}

# In each pair of layers the first is split by its outputs and the second by its inputs, so that a pair costs one sum
# over `tensor` (Shoeybi et al. 2019).
RULES = (
    SplitRule(pattern=r"blocks/qkv/kernel", axes=(None, "tensor"), modules=ALL_BLOCKS),  # attention heads
    SplitRule(pattern=r"blocks/qkv/bias", axes=("tensor",), modules=TOKENIZER_BLOCKS),
    SplitRule(pattern=r"blocks/out/kernel", axes=("tensor", None), modules=ALL_BLOCKS),
    SplitRule(pattern=r"blocks/(gate|up)/kernel", axes=(None, "tensor"), modules=GENERATOR_BLOCKS),  # MLP channels
    SplitRule(pattern=r"blocks/mlp_in/kernel", axes=(None, "tensor"), modules=TOKENIZER_BLOCKS),
    SplitRule(pattern=r"blocks/mlp_in/bias", axes=("tensor",), modules=TOKENIZER_BLOCKS),
    SplitRule(pattern=r"blocks/down/kernel", axes=("tensor", None), modules=GENERATOR_BLOCKS),
    SplitRule(pattern=r"blocks/mlp_out/kernel", axes=("tensor", None), modules=TOKENIZER_BLOCKS),
    SplitRule(pattern=r"code_(tables|entries)", axes=("tensor", None), modules=GENERATOR),  # the vocabulary
    SplitRule(pattern=r"outputs", axes=(None, "tensor"), modules=GENERATOR),
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
    r"target_table",
    r"code_projection",
    r"scale",
)
SMALLEST_SPLIT = 2**14  # elements

log = logging.getLogger(__name__)


def state_sharding(state: PyTree, mesh: Mesh, *, kind: str, smallest_split: int = SMALLEST_SPLIT) -> PyTree:
    """Returns shardings for parameters, and for optimizer state and moving averages, whose paths end alike.

    `RULES` say what is split over `tensor`. Of the other dimensions the largest that divides is split over `fsdp`;
    if none does, and in small arrays, none is. If `tensor` has more than one device, a large parameter that neither a
    rule nor `REPLICATED` names is logged as a warning: it costs memory and repeats work on every device of `tensor`.

    Args:
      state: arrays or their shapes; parameters, or a train state with the field `params`.
      mesh: with the axes `fsdp` and `tensor`.
      kind: of the model, as in `model.json`.
      smallest_split: elements from which an array is split over `fsdp`.

    Raises:
      UserError: a rule splits a dimension that does not divide, or `tensor` has more than one device and a rule for
        this kind of model matches none of its parameters.
    """
    if mesh.shape["tensor"] > 1:
        _check_rules(state, kind)
        _log_unnamed_parameters(state, mesh.shape["tensor"], smallest_split)

    def leaf_sharding(path, leaf) -> NamedSharding:
        name = _name(path)
        return NamedSharding(mesh, partition(name, leaf.shape, dict(mesh.shape), smallest_split=smallest_split))

    return jax.tree_util.tree_map_with_path(leaf_sharding, state)


def unmatched_rules(state: PyTree, kind: str) -> list[SplitRule]:
    """Returns the rules for modules of this model that match none of its parameters."""
    names = list(_parameter_shapes(state))
    unmatched = []
    for rule in RULES:
        module = rule.modules.get(kind)
        is_required = module is not None and any(re.search(f"(^|/){module}(/|$)" if module else "", n) for n in names)
        if is_required and not any(rule.matches(name) for name in names):
            unmatched.append(rule)
    return unmatched


def _check_rules(state: PyTree, kind: str) -> None:
    unmatched = unmatched_rules(state, kind)
    if unmatched:
        patterns = ", ".join(repr(rule.pattern) for rule in unmatched)
        raise UserError(
            f"These rules of fqgan_jax/sharding/rules.py match no parameter of the {kind}: {patterns}. Correct the "
            "pattern, or the modules that the rule names."
        )


def _log_unnamed_parameters(state: PyTree, tensor: int, smallest_split: int) -> None:
    unnamed = unnamed_parameters(state, smallest_split=smallest_split)
    if unnamed:
        log.warning(
            "mesh.tensor=%d does not split these parameters, of which every device holds all: %s. Name them in "
            "RULES or REPLICATED of fqgan_jax/sharding/rules.py.",
            tensor,
            ", ".join(f"{name} {list(shape)}" for name, shape in unnamed.items()),
        )


def unnamed_parameters(state: PyTree, *, smallest_split: int = SMALLEST_SPLIT) -> dict[str, tuple[int, ...]]:
    """Returns name and shape of the large parameters that neither `RULES` nor `REPLICATED` name."""
    patterns = "|".join([rule.pattern for rule in RULES] + list(REPLICATED))
    return {
        name: shape
        for name, shape in _parameter_shapes(state).items()
        if math.prod(shape) >= smallest_split and not re.search(f"(^|/)({patterns})$", name)
    }


def _parameter_shapes(state: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(getattr(state, "params", state))
    return {_name(path): leaf.shape for path, leaf in leaves}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def partition(
    name: str, shape: tuple[int, ...], axis_sizes: dict[str, int], *, smallest_split: int = SMALLEST_SPLIT
) -> PartitionSpec:
    """Returns the split of one array, by its path and the sizes of the mesh axes; see `state_sharding`."""
    spec: list[str | None] = [None] * len(shape)
    rule = next((rule for rule in RULES if rule.matches(name)), None)
    axes, pattern = ((), "") if rule is None else (rule.axes, rule.pattern)
    for dimension, axis in enumerate(axes, len(shape) - len(axes)):
        if axis is None or axis_sizes[axis] == 1:
            continue
        if shape[dimension] % axis_sizes[axis]:
            raise UserError(
                f"mesh.{axis}={axis_sizes[axis]} does not divide dimension {dimension} of parameter {name} "
                f"{list(shape)}, which the rule {pattern!r} of sharding/rules.py splits: choose another size of "
                f"mesh.{axis}."
            )
        spec[dimension] = axis
    fsdp = axis_sizes["fsdp"]
    free = [i for i in range(len(shape)) if spec[i] is None and shape[i] % fsdp == 0]
    if fsdp > 1 and free and math.prod(shape) >= smallest_split:
        spec[max(free, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*spec) if any(spec) else PartitionSpec()
