"""Metrics of codes: usage of the sub-codebooks and their mutual information."""

import dataclasses
import functools
import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Metric
from jaxtyping import Array, Bool, Float, Int

from fqgan_jax.evaluation.metrics import tables

# Tokens from which mutual information is estimated; sorting them takes seconds for each pair of sub-codebooks.
INFORMATION_TOKENS = 2**22


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeSet:
    """The codes of a set of images.

    Attributes:
      codes: codes of each image.
      codebook_size: N.
    """

    codes: Int[np.ndarray, "n h w K"]
    codebook_size: int

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, "K N"]:
        """How often each code was chosen."""
        columns = self.codes.reshape(-1, self.codes.shape[-1]).T
        return np.stack([np.bincount(column, minlength=self.codebook_size) for column in columns])


@flax.struct.dataclass
class CodeUsage(Metric):
    """How often each code was chosen, as a metric that training merges over steps and devices."""

    counts: Float[Array, "K N"]

    @classmethod
    def from_codes(cls, codes: Int[Array, "B h w K"], codebook_size: int, weights: Float[Array, "*s"] | float = 1.0):
        """Counts the codes of a batch; `weights`, broadcast to their shape, say what each counts."""
        K = codes.shape[-1]
        weights = jnp.broadcast_to(weights, codes.shape)
        # One counter for all sub-codebooks: code c of sub-codebook k is number k * N + c.
        numbers = codes + codebook_size * jnp.arange(K)
        counts = jnp.zeros(K * codebook_size).at[numbers.reshape(-1)].add(weights.reshape(-1))
        return cls(counts.reshape(K, codebook_size))

    def merge(self, other: "CodeUsage") -> "CodeUsage":
        """Returns the counts of both."""
        return CodeUsage(self.counts + other.counts)

    def compute(self) -> dict[str, Float[np.ndarray, " K"]]:
        """Returns usage, number of dead entries and perplexity of each sub-codebook."""
        counts = np.asarray(self.counts, np.float64)
        return {"usage": _usage(counts), "dead": np.sum(counts == 0, -1), "perplexity": _perplexity(counts)}


@tables.code("usage", better="higher")
def usage(codes: CodeSet) -> dict[str, float]:
    """Share of each sub-codebook's entries that are chosen at least once."""
    return _by_codebook(_usage(codes.counts))


@tables.code("perplexity", better="higher")
def perplexity(codes: CodeSet) -> dict[str, float]:
    """Exponential of the entropy of each sub-codebook's frequencies."""
    return _by_codebook(_perplexity(codes.counts))


@tables.code("mutual_information", unit="nats", better="lower")
def shared_information(codes: CodeSet) -> dict[str, float]:
    """Mutual information of each pair of sub-codebooks in nats, from the first `INFORMATION_TOKENS` tokens."""
    _, h, w, K = codes.codes.shape
    if K == 1:
        return {}
    counted = jnp.asarray(codes.codes[: max(1, INFORMATION_TOKENS // (h * w))])
    shared = jax.jit(mutual_information)(counted, jnp.ones(len(counted)))
    return {f"{i}-{j}": float(value) for (i, j), value in zip(_pairs(K), shared, strict=True)}


def mutual_information(codes: Int[Array, "B h w K"], mask: Float[Array, " B"]) -> Float[Array, " pairs"]:
    """Mutual information in nats between the codes of each of the K(K-1)/2 pairs (0, 1), (0, 2), ..., (K-2, K-1).

    The entropy of the pairs of codes at different tokens, drawn at random, minus that of the pairs at the
    same token. Both come from the same number of pairs, so that independent codes give about 0 however few the tokens
    are; the information of dependent codes is underestimated if tokens are few.

    Args:
      codes: codes of a set of images.
      mask: 0 for images that do not count.
    """
    K = codes.shape[-1]
    counted = jnp.broadcast_to(mask[:, None, None], codes.shape[:-1]).reshape(-1) > 0
    order = jnp.argsort(~counted, stable=True)  # counted images come first
    tokens, counted = jnp.asarray(codes).reshape(-1, K)[order], counted[order]
    drawn = jax.random.uniform(jax.random.key(0), counted.shape)
    others = tokens[jnp.argsort(jnp.where(counted, drawn, jnp.inf))]

    def shared(pair: Int[Array, "2"]) -> Float[Array, ""]:
        first, second = tokens[:, pair[0]], tokens[:, pair[1]]
        return _joint_entropy(first, others[:, pair[1]], counted) - _joint_entropy(first, second, counted)

    return jax.lax.map(shared, jnp.array(_pairs(K), jnp.int32))


def _pairs(num_codebooks: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(num_codebooks), 2))


def _joint_entropy(a: Int[Array, " n"], b: Int[Array, " n"], counted: Bool[Array, " n"]) -> Float[Array, ""]:
    """Entropy in nats of the frequencies of the counted pairs of values."""
    # Sorted, with uncounted pairs last; equal pairs are neighbours.
    hidden, a, b = jax.lax.sort((~counted, a, b), num_keys=3)
    first = jnp.concatenate([jnp.ones(1, bool), (a[1:] != a[:-1]) | (b[1:] != b[:-1])]) & ~hidden
    run = jnp.where(hidden, len(a), jnp.cumsum(first) - 1)
    counts = jax.ops.segment_sum(jnp.ones(len(a)), run, len(a))
    return -jnp.sum(jax.scipy.special.xlogy(counts, counts / jnp.maximum(jnp.sum(counted), 1))) / jnp.sum(counted)


def _usage(counts: Float[np.ndarray, "K N"] | Int[np.ndarray, "K N"]) -> Float[np.ndarray, " K"]:
    return np.mean(counts > 0, -1)


def _perplexity(counts: Float[np.ndarray, "K N"] | Int[np.ndarray, "K N"]) -> Float[np.ndarray, " K"]:
    p = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
    return np.exp(-np.sum(p * np.log(np.maximum(p, 1e-30)), -1))


def _by_codebook(values: Float[np.ndarray, " K"]) -> dict[str, float]:
    return {str(k): float(value) for k, value in enumerate(values)}
