"""The tables of losses, and the objective: the weighted sum of their rows."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.config.registry import Registry, nearest
from fqgan_jax.errors import check

Terms = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """One row.

    Attributes:
      function: takes what the forward pass produced as keywords and ignores the keywords it does not need. Returns a
        scalar, or one value per sub-codebook; None if the loss does not apply to the model.
      always: compute and log the loss even if its weight is 0.
      options: other fields of the config's `loss` section that the function takes as keywords.
    """

    function: Callable[..., Array | None]
    always: bool = False
    options: tuple[str, ...] = ()


def _row(function: Callable, **attributes) -> Loss:
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    check(
        inspect.Parameter.VAR_KEYWORD in kinds,
        f"The loss {getattr(function, '__name__', function)} must end its parameters with **_: it gets everything that "
        "the forward pass produced as keywords.",
    )
    return Loss(function=function, **attributes)


tokenizer: Registry[Loss] = Registry("tokenizer loss", _row, section="loss", task="tokenizer")
generator: Registry[Loss] = Registry("generator loss", _row, section="loss", task="generator")


def _required(function: Callable) -> list[str]:
    """The keywords that a function cannot do without."""
    parameters = inspect.signature(function).parameters.values()
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each.name for each in parameters if each.kind in named and each.default is inspect.Parameter.empty]


def objective(
    rows: Registry[Loss],
    weights: Mapping[str, float],
    *,
    num_codebooks: int,
    over_codebooks: Callable[[Array], Array],
    options: Mapping[str, Any],
    **produced: Any,
) -> tuple[Float[Array, ""], Terms]:
    """Returns the weighted sum of all losses, and every loss by name, unweighted.

    Args:
      rows: `losses.tokenizer` or `losses.generator`.
      weights: weights of the rows by name; a row without one has weight 0.
      num_codebooks: K.
      over_codebooks: `jnp.sum` or `jnp.mean`, applied to a loss that has one value per sub-codebook.
      options: the fields that rows name as their options.
      **produced: what the forward pass produced, by name; see `TokenizerOutputs` and `generator_step`.

    Raises:
      UserError: a loss asks for what there is not, or returns neither one number nor at most one per sub-codebook.
    """
    terms: Terms = {}
    total = jnp.float32(0)
    for name, row in rows.items():
        weight = weights.get(name, 0.0)
        if not weight and not row.always:
            continue
        arguments = produced | {option: options[option] for option in row.options}
        for keyword in _required(row.function):
            check(
                keyword in arguments,
                f"The {rows.kind} {name!r} asks for {keyword!r}, which no step gives{nearest(keyword, arguments)}",
            )
        term = row.function(**arguments)
        if term is not None:
            shape = jnp.shape(term)
            check(
                not shape or (len(shape) == 1 and shape[0] <= num_codebooks),
                f"The {rows.kind} {name!r} returns an array of shape {list(shape)}: return one number, or one for each "
                f"of the {num_codebooks} sub-codebooks (take the mean over images and positions).",
            )
            terms[name] = term
            total = total + weight * over_codebooks(term)
    return total, terms
