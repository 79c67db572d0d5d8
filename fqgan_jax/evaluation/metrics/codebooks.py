"""How sub-codebooks are used, and what they share."""

import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Bool, Float, Int, UInt32

# Tokens from which mutual information is estimated; sorting them takes seconds for each pair of sub-codebooks.
INFORMATION_TOKENS = 2**22


@flax.struct.dataclass
class CodeUsage(metrics.Metric):
    """How often each code was chosen; usage and perplexity of each sub-codebook."""

    counts: Float[Array, "K N"]

    @classmethod
    def from_codes(cls, codes: Int[Array, "B h w K"], codebook_size: int, mask: Float[Array, " B"] | None = None):
        """Counts the codes of a batch, weighted by `mask` where given."""
        K = codes.shape[-1]
        weights = jnp.ones(codes.shape) if mask is None else jnp.broadcast_to(mask[:, None, None, None], codes.shape)
        # One counter for all sub-codebooks: code c of sub-codebook k is number k * N + c.
        numbers = codes + codebook_size * jnp.arange(K)
        counts = jnp.zeros(K * codebook_size).at[numbers.reshape(-1)].add(weights.reshape(-1))
        return cls(counts.reshape(K, codebook_size))

    def merge(self, other: "CodeUsage") -> "CodeUsage":
        return CodeUsage(self.counts + other.counts)

    def compute(self) -> dict[str, Float[np.ndarray, " K"]]:
        """Share of entries used at least once, how many were not, and exp of the entropy of their frequencies."""
        counts = np.asarray(self.counts, np.float64)
        p = counts / np.maximum(counts.sum(-1, keepdims=True), 1)
        entropy = -np.sum(p * np.log(np.maximum(p, 1e-30)), -1)
        return {"usage": np.mean(counts > 0, -1), "dead": np.sum(counts == 0, -1), "perplexity": np.exp(entropy)}


def code_statistics(codes: Int[np.ndarray, "n h w K"], codebook_size: int) -> dict[str, float]:
    """Usage and perplexity of each sub-codebook, and mutual information (nats) of each pair, over a set of images.

    Mutual information is that of the first `INFORMATION_TOKENS` tokens.
    """
    _, h, w, K = codes.shape
    health = CodeUsage.from_codes(jnp.asarray(codes), codebook_size).compute()
    results = {f"{name}/{k}": float(value) for name in ("usage", "perplexity") for k, value in enumerate(health[name])}
    if K > 1:
        counted = jnp.asarray(codes[: max(1, INFORMATION_TOKENS // (h * w))])
        shared = jax.jit(mutual_information, static_argnums=2)(counted, jnp.ones(len(counted)), codebook_size)
        pairs = itertools.combinations(range(K), 2)
        results |= {f"mutual_information/{i}-{j}": float(v) for (i, j), v in zip(pairs, shared, strict=True)}
    return results


def mutual_information(
    codes: Int[Array, "B h w K"], mask: Float[Array, " B"], codebook_size: int
) -> Float[Array, " pairs"]:
    """Mutual information in nats between the codes of each of the K(K-1)/2 pairs (0, 1), (0, 2), ..., (K-2, K-1).

    The entropy of the pairs of codes that stand at different tokens, drawn at random, minus that of the pairs at the
    same token. Both come from the same number of pairs, so that independent codes give about 0 however few the tokens
    are; codes that do share something are underestimated where tokens are few. Images whose `mask` is 0 do not count.
    """
    K = codes.shape[-1]
    counted = jnp.broadcast_to(mask[:, None, None], codes.shape[:-1]).reshape(-1) > 0
    order = jnp.argsort(~counted, stable=True)  # what counts comes first
    tokens, counted = jnp.asarray(codes).reshape(-1, K)[order].astype(jnp.uint32), counted[order]
    drawn = jax.random.uniform(jax.random.key(0), counted.shape)
    others = tokens[jnp.argsort(jnp.where(counted, drawn, jnp.inf))]
    # Two codes as one number, of 16 bits each where the sizes allow.
    joint = lambda a, b: _entropy(a * codebook_size + b, counted)

    def shared(pair):
        first, second = tokens[:, pair[0]], tokens[:, pair[1]]
        return joint(first, others[:, pair[1]]) - joint(first, second)

    return jax.lax.map(shared, jnp.array(list(itertools.combinations(range(K), 2)), jnp.int32))


def _entropy(values: UInt32[Array, " n"], counted: Bool[Array, " n"]) -> Float[Array, ""]:
    """Entropy in nats of the frequencies of the counted values."""
    # Sorted, with what does not count behind; equal values are neighbours.
    hidden, ranked = jax.lax.sort((~counted, values), num_keys=2)
    first = jnp.concatenate([jnp.ones(1, bool), ranked[1:] != ranked[:-1]]) & ~hidden
    run = jnp.where(hidden, len(values), jnp.cumsum(first) - 1)
    counts = jax.ops.segment_sum(jnp.ones(len(values)), run, len(values))
    return -jnp.sum(jax.scipy.special.xlogy(counts, counts / jnp.maximum(jnp.sum(counted), 1))) / jnp.sum(counted)
