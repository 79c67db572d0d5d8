"""Operation counts of a function, from its jaxpr.

XLA's `cost_analysis` counts the body of a loop once, however often it runs; layers here are scanned.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters import partial_eval


def count_flops(function: Callable, *arguments) -> float:
    """Returns the operations of the matrix products and convolutions in `function(*arguments)`, on all devices.

    A multiplication and an addition are two. Loops count as often as they run (a `while` whose length is not in its
    program: once), and branches as the most expensive one, those for a certain platform not at all. Values that no
    result needs do not count, nor do a convolution's taps that meet padding or the holes of a dilation. Element-wise
    operations, bound by memory, are left out.

    Args:
      function: traceable by JAX.
      arguments: arrays or their shapes (`jax.ShapeDtypeStruct`); nothing is computed.
    """
    return _count(used_jaxpr(function, *arguments))


def used_jaxpr(function: Callable, *arguments) -> Jaxpr:
    """Returns the program of `function(*arguments)` without values that no result needs."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return used


def _count(jaxpr: Jaxpr) -> float:
    return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(equation: JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot_general(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in branches(params))
    rounds = params["length"] if name == "scan" else 1
    return rounds * sum(map(_count, inner_jaxprs(params)))


def branches(params: dict) -> list[ClosedJaxpr]:
    """Branches that count; a platform's own formula may do work that the function does not need."""
    platforms = params.get("branches_platforms") or [None] * len(params["branches"])
    return [branch for branch, platform in zip(params["branches"], platforms, strict=True) if platform is None]


def inner_jaxprs(params: dict) -> Iterator[Jaxpr]:
    """Yields the programs within an equation: of calls, loops, rematerialization and custom derivatives."""
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _dot_general(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = _shape(equation.invars[0]), _shape(equation.outvars[0])
    return 2.0 * prod(result) * prod(left[axis] for axis in contracted)


def _convolution(equation: JaxprEqn) -> float:
    params, numbers = equation.params, equation.params["dimension_numbers"]
    left, right, result = map(_shape, (*equation.invars, *equation.outvars))
    taps = 1.0
    spatial = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    for i, (left_axis, right_axis, result_axis) in enumerate(spatial):
        taps *= _taps(
            size=left[left_axis],
            kernel=right[right_axis],
            outputs=result[result_axis],
            stride=params["window_strides"][i],
            dilation=params["lhs_dilation"][i],
            kernel_dilation=params["rhs_dilation"][i],
            padding=params["padding"][i][0],
        )
    batch, features = (result[axis] for axis in numbers.out_spec[:2])
    return 2.0 * batch * features * right[numbers.rhs_spec[1]] * taps


def _taps(
    *, size: int, kernel: int, outputs: int, stride: int, dilation: int, kernel_dilation: int, padding: int
) -> int:
    """Number of pairs of an output and a kernel position along one dimension that meet an input element."""
    at = np.arange(outputs)[:, None] * stride + np.arange(kernel) * kernel_dilation - padding
    return int(np.sum((at >= 0) & (at % dilation == 0) & (at // dilation < size)))
