"""Quality against bits: one tokenizer of nested training, measured by its first sub-codebooks alone."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from fqgan_jax.api import Tokenizer
from fqgan_jax.evaluation.protocol import Evaluation, Measurement, aligned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefix:
    """One measurement.

    Attributes:
      codebooks: k, how many sub-codebooks were there.
      bits: that a position's k codes need.
      evaluation: numbers and protocol.
    """

    codebooks: int
    bits: float
    evaluation: Evaluation


def measure_prefixes(
    tokenizer: Tokenizer, codebooks: Sequence[int], measure: Callable[[Tokenizer], Measurement]
) -> list[Prefix]:
    """Measures the first k sub-codebooks of a tokenizer, for each given k.

    Raises:
      UserError: a k that the tokenizer does not have, or training was not nested.
    """
    prefixes = [tokenizer.first(k) for k in codebooks]
    bits = math.log2(tokenizer.module.codebook_size)
    return [
        Prefix(codebooks=k, bits=k * bits, evaluation=measure(prefix).evaluation)
        for k, prefix in zip(codebooks, prefixes, strict=True)
    ]


def joined(prefixes: Sequence[Prefix]) -> Evaluation:
    """Returns all measurements as one evaluation, whose results are named `NAME/first K`."""
    results = {
        f"{name}/first {prefix.codebooks}": value for prefix in prefixes for name, value in headline(prefix).items()
    }
    first = prefixes[0].evaluation
    tokenizers = {str(prefix.codebooks): prefix.evaluation.protocol["tokenizer"] for prefix in prefixes}
    return Evaluation(results=results, missing=first.missing, protocol=first.protocol | {"tokenizer": tokenizers})


def headline(prefix: Prefix) -> dict[str, float]:
    """Returns the results that are one number, not one for each sub-codebook or pair."""
    return {name: value for name, value in prefix.evaluation.results.items() if "/" not in name}


def prefix_table(prefixes: Sequence[Prefix]) -> str:
    """Returns a line for each k with its bits a position and its numbers, and below why some are missing."""
    names = list(headline(prefixes[0]))
    rows = [["codebooks", "bits a position", *names]]
    for prefix in prefixes:
        numbers = headline(prefix)
        rows.append([str(prefix.codebooks), f"{prefix.bits:g}", *(f"{numbers[name]:.6g}" for name in names)])
    lines = aligned(rows)
    lines += [f"Missing {names}: {reason}" for reason, names in prefixes[0].evaluation.reasons().items()]
    return "\n".join(lines)
