"""The correspondence between published tensors and parameters: tables of names, applied in both directions.

A table is a sequence of `Rule`s, one per kind of parameter. Applied to the parameter tree of a module it gives one
`Entry` per published tensor: its name, the parameter it belongs to, its index among stacked layers and its layout.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError

Shape = tuple[int, ...]
Row = TypeVar("Row")


class Layout(Enum):
    """Order of a published tensor's axes: the parameter's, a kernel's, or a 1x1 convolution's for a Dense kernel.

    Kernels are (..., in, out) in Flax and (out, in, ...) in published files, for linear layers and convolutions alike.
    """

    SAME = "same"
    KERNEL = "kernel"
    POINTWISE = "pointwise"

    def to_published(self, x: np.ndarray) -> np.ndarray:
        """Returns a parameter with the published order of axes (a view)."""
        if self is Layout.SAME:
            return x
        x = np.moveaxis(x, (-1, -2), (0, 1))
        return x[..., None, None] if self is Layout.POINTWISE else x

    def from_published(self, x: np.ndarray) -> np.ndarray:
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
      path: path of a parameter, with `{fields}` for its variable parts.
      published: name of a tensor, with fields of `path`, of `stack` and of the sub-codebook's names.
      layout: order of the published tensor's axes.
      stack: fields over which the parameter is stacked, its leading axes; "k" is the sub-codebook.
    """

    path: str
    published: str
    layout: Layout = Layout.SAME
    stack: tuple[str, ...] = field(default=(), kw_only=True)

    def match(self, path: str) -> dict[str, str] | None:
        """Returns the values of the fields if `path` is a parameter of this rule, else None."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[a-z]+|[0-9]+)", self.path)
        found = re.fullmatch(pattern, path)
        return None if found is None else found.groupdict()


def layer(
    path: str, published: str, layout: Layout = Layout.KERNEL, *, stack: tuple[str, ...] = ()
) -> tuple[Rule, ...]:
    """Returns the rules of a layer with kernel or scale, and bias; `published` includes the separator at its end."""
    return (
        Rule(f"{path}/kernel", f"{published}weight", layout, stack=stack),
        Rule(f"{path}/scale", f"{published}weight", stack=stack),
        Rule(f"{path}/bias", f"{published}bias", stack=stack),
    )


def within(path: str, published: str, rules: Iterable[Rule], *, stack: tuple[str, ...] = ()) -> tuple[Rule, ...]:
    """Returns the rules of a part of a module as rules of the module, in which the part has this path and name."""
    return tuple(
        Rule(f"{path}/{rule.path}", f"{published}.{rule.published}", rule.layout, stack=stack + rule.stack)
        for rule in rules
    )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One published tensor.

    Attributes:
      name: as published.
      shape: as published.
      path: path of the parameter that holds it, which may hold others too.
      stacked: leading axes over which the parameter stacks tensors, () if it does not.
      index: index of this tensor along those axes.
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
    """Returns one entry per published tensor of a model.

    Args:
      rules: the table of names.
      shapes: shape of each parameter by path.
      codebook_names: per sub-codebook, the fields of published names that depend on "k".

    Raises:
      KeyError: a parameter has no rule.
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
            entry = Entry(
                name=rule.published.format(**values, **names),
                shape=published_shape,
                path=path,
                stacked=stacked,
                index=index,
                layout=rule.layout,
            )
            entries.append(entry)
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
    """Returns published tensors (contiguous copies, dtype unchanged) of nested parameters."""
    leaves = traverse_util.flatten_dict(params, sep="/")
    tensors = {}
    for path, group in _by_path(entries):
        leaf = np.asarray(leaves[path])
        for entry in group:
            tensors[entry.name] = np.array(entry.layout.to_published(leaf[entry.index]), order="C")
    return tensors


def scatter(entries: Iterable[Entry], state: Mapping[str, np.ndarray]) -> dict:
    """Returns nested parameters (float32) of published tensors, which `check_tensors` has accepted."""
    leaves = {}
    for path, group in _by_path(entries):
        parts = [entry.layout.from_published(np.asarray(state[entry.name], np.float32)) for entry in group]
        leaves[path] = np.stack(parts).reshape(group[0].stacked + parts[0].shape)
    return traverse_util.unflatten_dict(leaves, sep="/")


def check_tensors(entries: Iterable[Entry], state: Mapping[str, np.ndarray], model: str) -> None:
    """Raises `UserError` naming the tensors of a checkpoint of `model` that are missing, unexpected or misshapen."""
    problems = misfits({entry.name: entry.shape for entry in entries}, state)
    lines = [f"  {len(names)} {kind}: {first_names(names)}" for kind, names in problems.items() if names]
    if lines:
        lines.insert(0, f"The checkpoint's tensors do not fit {model}:")
        raise UserError("\n".join([*lines, "Check that the configuration is the one the checkpoint was trained with."]))


def misfits(expected: Mapping[str, Shape], state: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Returns what does not fit among tensors, by what is wrong with it.

    Args:
      expected: shape of each by its name.
      state: the tensors by name.
    """
    found = {name: tuple(np.shape(tensor)) for name, tensor in state.items()}
    shared = [name for name in expected if name in found]
    return {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {found[name]}, not {expected[name]}" for name in shared if found[name] != expected[name]
        ],
        "no parameters": [f"{name} ({reason})" for name in shared if (reason := unusable(state[name]))],
    }


def unusable(tensor: np.ndarray) -> str:
    """Returns why a tensor cannot be a parameter: its type, or values that are no finite float32; "" if it can."""
    tensor = np.asarray(tensor)
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return f"of type {tensor.dtype}"
    if not np.isfinite(tensor).all():
        return "NaN or infinite"
    is_large = tensor.dtype == np.float64 and tensor.size and np.abs(tensor).max() > np.finfo(np.float32).max
    return "too large for float32" if is_large else ""


def check_params(params: Mapping, expected: Mapping[str, Shape] | None, source: str) -> None:
    """Raises `UserError` naming the parameters that a model cannot have.

    Args:
      params: nested parameters.
      expected: shape of each by its path; None if they are not known.
      source: where they were read, for the message.
    """
    leaves = traverse_util.flatten_dict(params, sep="/")
    shapes = {path: np.shape(leaf) for path, leaf in leaves.items()} if expected is None else expected
    found = misfits(shapes, leaves)
    problems = [f"{path} ({kind})" for kind in ("missing", "unexpected") for path in found[kind]]
    problems += [*found["no parameters"], *found["of another shape"]]
    if problems:
        raise UserError(f"{source} holds parameters that do not fit its model: {first_names(problems)}.")


def first_names(names: Sequence[str], limit: int = 10) -> str:
    """Lists the first names, and how many more there are."""
    listed, more = ", ".join(names[:limit]), len(names) - limit
    return f"{listed} and {more} more" if more > 0 else listed


def parameter_shapes(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> dict[str, Shape]:
    """Returns the shape of every parameter of a module by its path, computing nothing."""
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}


def shape_of(shapes: Mapping[str, Shape], name: str, *, rank: int, model: str) -> Shape:
    """Returns the shape of a tensor.

    Raises:
      UserError: the checkpoint of a `model` lacks it, or it has another number of axes.
    """
    shape = tuple(shapes.get(name, ()))
    if len(shape) != rank:
        reason = f"{name} has shape {shape}, not {rank} axes" if name in shapes else f"it has no tensor {name}"
        names = first_names(list(shapes)) or "none"
        raise UserError(f"This is no checkpoint of {model}: {reason}. Its {len(shapes)} tensors: {names}.")
    return shape


def count_tensors(shapes: Mapping[str, Shape], template: str) -> int:
    """Counts how many of `template.format(0)`, `template.format(1)`, … there are without a gap."""
    return next(i for i in itertools.count() if template.format(i) not in shapes)


def published_row(table: Registry[Row], name: str) -> Row:
    """Returns the row of a table of published names.

    Raises:
      UserError: nothing of this name is ever published.
    """
    if name not in table:
        raise UserError(
            f"The {table.kind} {name!r} has no published tensor names (these have: {', '.join(table)}): such models "
            "are read and written in native form alone (--format native). Add a row to the table of fqgan_jax.interop "
            "to change that."
        )
    return table[name]
