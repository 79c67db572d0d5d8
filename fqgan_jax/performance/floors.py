"""The least bytes that a model must move to and from memory."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import PyTree

from fqgan_jax.models.far import FAR
from fqgan_jax.performance.flops import branches, inner_jaxprs, used_jaxpr

_PRODUCTS = ("dot_general", "conv_general_dilated")


def layer_floor_bytes(function: Callable, *arguments) -> float:
    """Returns the bytes of the inputs, weights and outputs, each once, of all convolutions, products and norms.

    All else (activations, residual sums, softmaxes, rearrangements) is taken to be part of its neighbours. A norm is
    what a module computes whose name has "norm" in it. Data types are those of the program: weights that it converts
    before a product count as converted. Loops count as often as they run, branches as the largest one.

    Args:
      function: traceable by JAX.
      arguments: arrays or their shapes (`jax.ShapeDtypeStruct`); nothing is computed.
    """
    return _count(used_jaxpr(function, *arguments))


def _count(jaxpr: Jaxpr) -> float:
    norms: dict[str, list[JaxprEqn]] = {}
    total = 0.0
    for equation in jaxpr.eqns:
        norm = _norm(equation)
        if norm:
            norms.setdefault(norm, []).append(equation)
        elif equation.primitive.name in _PRODUCTS:
            total += _bytes(equation.invars) + _bytes(equation.outvars)
        elif equation.primitive.name == "cond":
            total += max(_count(branch.jaxpr) for branch in branches(equation.params))
        else:
            rounds = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += rounds * sum(map(_count, inner_jaxprs(equation.params)))
    return total + sum(_group_bytes(group, jaxpr) for group in norms.values())


def _norm(equation: JaxprEqn) -> str:
    """Path of the norm that an equation belongs to, "" if there is none."""
    path = str(equation.source_info.name_stack).split("/")
    last = next((i for i, name in enumerate(path) if "norm" in name.lower() and "(" not in name), None)
    return "" if last is None else "/".join(path[: last + 1])


def _group_bytes(group: list[JaxprEqn], jaxpr: Jaxpr) -> float:
    """Bytes of what a group of equations takes from others and gives to others."""
    inside = {id(equation) for equation in group}
    made = {variable for equation in group for variable in equation.outvars}
    taken = {variable for equation in group for variable in _variables(equation.invars)} - made
    used = set(_variables(jaxpr.outvars))
    used.update(v for equation in jaxpr.eqns if id(equation) not in inside for v in _variables(equation.invars))
    return _bytes(taken) + _bytes(made & used)


def _variables(atoms) -> Iterator:
    return (atom for atom in atoms if not isinstance(atom, Literal))


def _bytes(atoms) -> float:
    return sum(atom.aval.size * atom.aval.dtype.itemsize for atom in atoms)


def sampling_floor_bytes(module: FAR, params: PyTree, batch_size: int) -> float:
    """Returns the bytes that guided sampling of a batch must read: weights at each position, keys and values so far.

    Weights in the compute dtype; the head's at each of a position's K codes, the output matrices once a position.

    Args:
      module: the generator.
      params: its parameters, or their shapes.
      batch_size: samples, each of them two rows (conditional and unconditional).
    """
    width = jnp.dtype(module.dtype).itemsize

    def count(name: str) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(params.get(name, ())))

    weights = count("backbone") + count("aggregate") + count("outputs") + module.num_codebooks * count("head")
    positions = module.grid[0] * module.grid[1]
    pasts = positions * (positions + 1) / 2  # keys and values of all earlier positions, summed over positions
    cached = 2 * module.depth * module.width * 2 * batch_size  # of conditional and unconditional rows
    return width * (positions * weights + pasts * cached)
