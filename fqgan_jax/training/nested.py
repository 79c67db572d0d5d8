"""Nested training: steps leave out sub-codebooks, so that the first ones decode without the others (MGVQ, 2025)."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fqgan_jax.errors import check


def kept_codebooks(key: Key[Array, ""], nested: Sequence[float]) -> Float[Array, " K"]:
    """Draws which sub-codebooks a step keeps, with 1 for those and 0 for the others (arXiv 2507.07997).

    One number u is drawn for the batch; sub-codebook k is left out where u < p_k. Rising p keep a prefix.

    Args:
      key: random key of the step.
      nested: p of each sub-codebook.
    """
    return (jax.random.uniform(key) >= jnp.asarray(nested)).astype(jnp.float32)


def nested_probabilities(nested: float | Sequence[float], num_codebooks: int) -> tuple[float, ...]:
    """Returns the probability with which each sub-codebook is left out, from the config field `model.nested`.

    Args:
      nested: one probability per sub-codebook; or one number, the last one's, to which they rise from 0 in equal steps;
        empty or 0 leaves out none.
      num_codebooks: K.

    Raises:
      UserError: another number of them, or probabilities with which the first sub-codebooks would not be a prefix.
    """
    values = (nested,) if isinstance(nested, int | float) else tuple(nested)
    if not any(values):
        return ()
    if len(values) == 1:
        last = max(num_codebooks - 1, 1)
        values = tuple(values[0] * k / last for k in range(num_codebooks))
    check(
        len(values) == num_codebooks,
        f"model.nested={nested} has {len(values)} probabilities for model.num_codebooks={num_codebooks}: give one for "
        "each sub-codebook, or one number for the last.",
    )
    check(
        values[0] == 0 and all(a <= b for a, b in itertools.pairwise(values)) and values[-1] < 1,
        f"model.nested={nested}: the probabilities of leaving out a sub-codebook must rise from 0 for the first and "
        "stay below 1.",
    )
    return values
