"""The correspondence between published tensors and our parameters: what a table of names means, in both directions.

A table is a sequence of `Rule`s, one a kind of parameter. Laid against the parameter tree of a module it gives one
`Entry` a published tensor: its name, the parameter it belongs to, its place among stacked layers and its layout.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from fqgan_jax.errors import UserError

Shape = tuple[int, ...]


class Layout(Enum):
    """How a published tensor's axes lie: as ours; as a kernel; or as a 1x1 convolution where ours is a Dense kernel.

    Kernels are (..., in, out) here and (out, in, ...) there, linear or convolution alike.
    """

    SAME = "same"
    KERNEL = "kernel"
    POINTWISE = "pointwise"

    def to_published(self, x: np.ndarray) -> np.ndarray:
        """Our parameter with the published order of axes (a view)."""
        if self is Layout.SAME:
            return x
        x = np.moveaxis(x, (-1, -2), (0, 1))
        return x[..., None, None] if self is Layout.POINTWISE else x

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        """Inverse of `to_published` (a view)."""
        if self is Layout.SAME:
            return x
        if self is Layout.POINTWISE:
            x = x[..., 0, 0]
        return np.moveaxis(x, (0, 1), (-1, -2))


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
      ours: path of a parameter, with `{fields}` for its variable parts.
      published: name of a tensor, with fields of `ours`, of `stack` and of the sub-codebook's names.
      layout: order of the published tensor's axes.
      stack: fields that our parameter stacks as its leading axes; "k" is the sub-codebook.
    """

    ours: str
    published: str
    layout: Layout = Layout.SAME
    stack: tuple[str, ...] = ()

    def match(self, path: str) -> dict[str, str] | None:
        """Values of the fields where `path` is a parameter of this rule."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[a-z]+|[0-9]+)", self.ours)
        found = re.fullmatch(pattern, path)
        return found and found.groupdict()


def layer(ours: str, published: str, layout: Layout = Layout.KERNEL, stack: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """Rules of one layer with kernel or scale, and bias; `published` includes the separator before "weight"."""
    return (
        Rule(f"{ours}/kernel", f"{published}weight", layout, stack),
        Rule(f"{ours}/scale", f"{published}weight", Layout.SAME, stack),
        Rule(f"{ours}/bias", f"{published}bias", Layout.SAME, stack),
    )


def within(ours: str, published: str, rules: Iterable[Rule], stack: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """The rules of a part, at its place in the whole."""
    return tuple(
        Rule(f"{ours}/{rule.ours}", f"{published}.{rule.published}", rule.layout, stack + rule.stack) for rule in rules
    )


@dataclass(frozen=True)
class Entry:
    """One published tensor.

    Attributes:
      name, shape: as published.
      path: of our parameter that holds it, for some together with others.
      stacked: how our parameter stacks them, () where it does not.
      index: this tensor's place there.
      layout: order of the published tensor's axes.
    """

    name: str
    shape: Shape
    path: str
    stacked: Shape
    index: tuple[int, ...]
    layout: Layout


def correspondence(
    rules: Sequence[Rule], shapes: Mapping[str, Shape], codebook_names: Sequence[Mapping[str, str]]
) -> list[Entry]:
    """One entry a published tensor of a model whose parameters have the given paths and shapes.

    `codebook_names` holds, per sub-codebook, the fields that depend on "k". A parameter without a rule is a KeyError.
    """
    entries = []
    for path, shape in shapes.items():
        rule, fields = _find(rules, path)
        stacked, single = shape[: len(rule.stack)], shape[len(rule.stack) :]
        # A view of one number has the shape and takes no memory.
        published_shape = rule.layout.to_published(np.broadcast_to(np.float32(0), single)).shape
        for index in np.ndindex(stacked):
            values = fields | {field: str(i) for field, i in zip(rule.stack, index, strict=True)}
            names = codebook_names[int(values["k"])] if "k" in values else {}
            name = rule.published.format(**values, **names)
            entries.append(Entry(name, published_shape, path, stacked, index, rule.layout))
    return entries


def _find(rules: Iterable[Rule], path: str) -> tuple[Rule, dict[str, str]]:
    """The rule of a parameter and the values of its fields."""
    for rule in rules:
        fields = rule.match(path)
        if fields is not None:
            return rule, fields
    raise KeyError(f"no published name for parameter {path}")


def _by_path(entries: Iterable[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Entries of the same parameter together; `correspondence` gives them in the parameter's order."""
    return ((path, list(group)) for path, group in itertools.groupby(entries, lambda entry: entry.path))


def gather(entries: Iterable[Entry], params: Mapping) -> dict[str, np.ndarray]:
    """Published tensors (contiguous copies, dtype unchanged) of our nested parameters."""
    leaves = traverse_util.flatten_dict(params, sep="/")
    tensors = {}
    for path, group in _by_path(entries):
        leaf = np.asarray(leaves[path])
        for entry in group:
            tensors[entry.name] = np.array(entry.layout.to_published(leaf[entry.index]), order="C")
    return tensors


def scatter(entries: Iterable[Entry], state: Mapping[str, np.ndarray]) -> dict:
    """Our nested parameters (float32) of published tensors, which `check_tensors` has accepted."""
    leaves = {}
    for path, group in _by_path(entries):
        parts = [entry.layout.to_ours(np.asarray(state[entry.name], np.float32)) for entry in group]
        leaves[path] = np.stack(parts).reshape(group[0].stacked + parts[0].shape)
    return traverse_util.unflatten_dict(leaves, sep="/")


def check_tensors(entries: Iterable[Entry], state: Mapping[str, np.ndarray], model: str) -> None:
    """UserError naming what is missing, unexpected or of another shape in the tensors of a checkpoint of `model`."""
    expected = {entry.name: entry.shape for entry in entries}
    found = {name: tuple(np.shape(tensor)) for name, tensor in state.items()}
    shared = [name for name in expected if name in found]
    problems = (
        ("missing", [name for name in expected if name not in found]),
        ("unexpected", [name for name in found if name not in expected]),
        (
            "of another shape",
            [f"{name} {found[name]}, not {expected[name]}" for name in shared if found[name] != expected[name]],
        ),
    )
    lines = [f"  {len(names)} {kind}: {first_names(names)}" for kind, names in problems if names]
    if lines:
        lines.insert(0, f"The checkpoint's tensors do not fit {model}:")
        raise UserError("\n".join([*lines, "Check that the configuration is the one the checkpoint was trained with."]))


def first_names(names: Sequence[str], limit: int = 10) -> str:
    """The first names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def parameter_shapes(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> dict[str, Shape]:
    """Path to shape of every parameter of a module, computing nothing."""
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}


def shape_of(shapes: Mapping[str, Shape], name: str, rank: int, model: str) -> Shape:
    """Shape of a tensor; UserError where the checkpoint of a `model` lacks it or it has another number of axes."""
    shape = tuple(shapes.get(name, ()))
    if len(shape) != rank:
        reason = f"{name} has shape {shape}, not {rank} axes" if name in shapes else f"it has no tensor {name}"
        names = first_names(list(shapes)) or "none"
        raise UserError(f"This is no checkpoint of {model}: {reason}. Its {len(shapes)} tensors: {names}.")
    return shape


def count(shapes: Mapping[str, Shape], template: str) -> int:
    """How many of `template.format(0)`, `template.format(1)`, … there are without a gap."""
    return next(i for i in itertools.count() if template.format(i) not in shapes)
