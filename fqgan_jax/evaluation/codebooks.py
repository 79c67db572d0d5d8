"""How sub-codebooks are used, and what they share."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fqgan_jax.training.metrics import CodeUsage

# Tokens from which mutual information is estimated; sorting them takes seconds for each pair of sub-codebooks.
INFORMATION_TOKENS = 2**22


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

    Estimated from the batch's own frequencies, with Miller's and Madow's correction of the bias of each entropy (half
    a count per value seen); where tokens are few against the codebook's size it still leans upwards. Images whose
    `mask` is 0 do not count.
    """
    K = codes.shape[-1]
    tokens = jnp.asarray(codes).reshape(-1, K)
    counted = jnp.broadcast_to(mask[:, None, None], codes.shape[:-1]).reshape(-1) > 0
    single = jax.lax.map(lambda k: _entropy(tokens[:, k], counted), jnp.arange(K))
    pairs = np.array(list(itertools.combinations(range(K), 2)), np.int32)

    def joint(pair):
        # Two codes as one number; 16 bits each where the sizes allow, in 32 bits without a sign.
        numbers = tokens[:, pair[0]].astype(jnp.uint32) * codebook_size + tokens[:, pair[1]].astype(jnp.uint32)
        return _entropy(numbers, counted)

    return single[pairs[:, 0]] + single[pairs[:, 1]] - jax.lax.map(joint, jnp.asarray(pairs))


def _entropy(values: Int[Array, " n"], counted: Array) -> Float[Array, ""]:
    """Entropy in nats of the frequencies of the counted values, corrected for its bias."""
    n = jnp.maximum(jnp.sum(counted), 1)
    # Sorted, with what does not count behind; equal values are neighbours.
    hidden, ranked = jax.lax.sort((~counted, values.astype(jnp.uint32)), num_keys=2)
    first = jnp.concatenate([jnp.ones(1, bool), ranked[1:] != ranked[:-1]]) & ~hidden
    run = jnp.cumsum(first) - 1
    counts = jax.ops.segment_sum(jnp.where(hidden, 0.0, 1.0), jnp.where(hidden, len(values), run), len(values))
    p = counts / n
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30)), 0)) + (jnp.sum(first) - 1) / (2 * n)
