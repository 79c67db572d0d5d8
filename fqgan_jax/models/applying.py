"""Calling a module with given parameters."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import PyTree


def apply(
    module: nn.Module, params: PyTree, *inputs: Any, method: str | Callable[..., Any] | None = None, **options: Any
) -> Any:
    """Returns what a module, or a method of it, computes with these parameters.

    As `module.apply`, whose declared result also allows for variables that change: modules here have none.
    """
    return module.apply({"params": params}, *inputs, method=method, **options)
