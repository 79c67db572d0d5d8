"""Distances of latents to codebook entries, for a bounded number of tokens at a time.

The table tokens x N does not fit into memory for many tokens. Positions are cut into chunks, forward and backward:
chunks of `chunk_tokens` tokens for up to `FULL_CHUNK_ENTRIES` entries, and proportionally fewer for more.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

FULL_CHUNK_ENTRIES = 2**14  # the published codebook's


def l2_normalize(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """Scales vectors to unit length (zero stays zero, with a zero gradient)."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


def squared_distances(x: Float[Array, "*s K d"], codebooks: Float[Array, "K N d"]) -> Float[Array, "*s K N"]:
    """Computes the squared Euclidean distance of each latent to each entry of its own sub-codebook."""
    products = jnp.einsum("...kd,knd->...kn", x, codebooks, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(x * x, -1)[..., None] + jnp.sum(codebooks * codebooks, -1) - 2 * products


def lookup(codebooks: Float[Array, "K N d"], codes: Int[Array, "*s K"]) -> Float[Array, "*s K d"]:
    """Looks up the entry of each code in its own sub-codebook."""
    return jax.vmap(lambda entries, index: entries[index], in_axes=(0, -1), out_axes=-2)(codebooks, codes)


def nearest_codes(
    x: Float[Array, "B T K d"], codebooks: Float[Array, "K N d"], *, chunk_tokens: int
) -> Int[Array, "B T K"]:
    """Finds the index of the nearest entry, for `chunk_tokens` tokens at a time."""

    def nearest(chunk):
        return jnp.argmin(squared_distances(chunk, codebooks), axis=-1)

    return _unchunked(jax.lax.map(nearest, _chunked(x, codebooks, chunk_tokens)))


def random_near_codes(
    key: Key[Array, ""],
    x: Float[Array, "B T K d"],
    codebooks: Float[Array, "K N d"],
    *,
    nearest: int,
    chunk_tokens: int,
) -> Int[Array, "B T K"]:
    """Draws, for each token, one of the indices of its `nearest` entries, all with the same probability."""
    rank = jax.random.randint(key, x.shape[:-1], 0, nearest)

    def drawn(chunk):
        x, rank = chunk
        _, codes = jax.lax.top_k(-squared_distances(x, codebooks), nearest)
        return jnp.take_along_axis(codes, rank[..., None], axis=-1)[..., 0]

    chunks = _chunked(x, codebooks, chunk_tokens), _chunked(rank, codebooks, chunk_tokens)
    return _unchunked(jax.lax.map(drawn, chunks))


def soft_assignment(
    x: Float[Array, "B T K d"], codebooks: Float[Array, "K N d"], *, temperature: float, chunk_tokens: int
) -> tuple[Int[Array, "B T K"], Float[Array, " K"], Float[Array, "K N"]]:
    """Assigns each token to entries with p = softmax(-squared distance / temperature).

    Args:
      x: latents.
      codebooks: their entries.
      temperature: temperature of the softmax.
      chunk_tokens: tokens whose distances are in memory at a time, also in the gradient.

    Returns:
      Index of the nearest entry, mean over tokens of the entropy of p in nats, mean over tokens of p.
    """
    return _soft_assignment(x, codebooks, _Softmax(temperature, chunk_tokens))


class _Softmax(NamedTuple):
    temperature: float
    chunk_tokens: int


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _soft_assignment(x, codebooks, softmax):
    return _soft_assignment_forward(x, codebooks, softmax)[0]


def _soft_assignment_forward(x, codebooks, softmax):
    def body(sums, chunk):
        distances = squared_distances(chunk, codebooks)
        log_p = jax.nn.log_softmax(-distances / softmax.temperature)
        p = jnp.exp(log_p)
        entropy, probability = sums
        sums = entropy - jnp.sum(p * log_p, (0, 1, 3)), probability + jnp.sum(p, (0, 1))
        return sums, jnp.argmin(distances, axis=-1)

    K, N, _ = codebooks.shape
    start = (jnp.zeros(K), jnp.zeros((K, N)))
    (entropy, probability), codes = jax.lax.scan(body, start, _chunked(x, codebooks, softmax.chunk_tokens))
    tokens = x.shape[0] * x.shape[1]
    return (_unchunked(codes), entropy / tokens, probability / tokens), (x, codebooks)


def _soft_assignment_backward(softmax, residuals, cotangents):
    x, codebooks = residuals
    _, entropy_bar, probability_bar = cotangents
    tokens = x.shape[0] * x.shape[1]

    def body(codebooks_bar, chunk):
        log_p = jax.nn.log_softmax(-squared_distances(chunk, codebooks) / softmax.temperature)
        p = jnp.exp(log_p)
        # The gradient of a function of p with respect to the logits is p * (g - sum(p * g)).
        g = probability_bar - entropy_bar[:, None] * log_p
        logits_bar = p * (g - jnp.sum(p * g, -1, keepdims=True)) * (2 / softmax.temperature / tokens)
        product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
        chunk_bar = product("bckn,knd->bckd", logits_bar, codebooks)
        codebooks_bar = codebooks_bar + product("bckn,bckd->knd", logits_bar, chunk)
        codebooks_bar = codebooks_bar - jnp.sum(logits_bar, (0, 1))[..., None] * codebooks
        return codebooks_bar, chunk_bar

    codebooks_bar, x_bar = jax.lax.scan(body, jnp.zeros_like(codebooks), _chunked(x, codebooks, softmax.chunk_tokens))
    return _unchunked(x_bar), codebooks_bar


_soft_assignment.defvjp(_soft_assignment_forward, _soft_assignment_backward)


def soft_lookup(
    x: Float[Array, "B T K d"], codebooks: Float[Array, "K N d"], codes: Int[Array, "B T K"], *, chunk_tokens: int
) -> Float[Array, "B T K d"]:
    """Looks up the entries of codes, with the gradient of a soft choice (index backpropagation, arXiv 2412.02692).

    The gradient is that of o C with o = hard + p - sg p, hard the one-hot codes, C the entries and p = softmax(x C^T):
    it reaches the latents and every entry.

    Args:
      x: latents.
      codebooks: C.
      codes: the chosen entries.
      chunk_tokens: tokens whose p is in memory at a time.
    """
    return _soft_lookup(x, codebooks, codes, chunk_tokens)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _soft_lookup(x, codebooks, codes, chunk_tokens):
    del x, chunk_tokens
    return lookup(codebooks, codes)


def _soft_lookup_forward(x, codebooks, codes, chunk_tokens):
    del chunk_tokens
    return lookup(codebooks, codes), (x, codebooks, codes)


def _soft_lookup_backward(chunk_tokens, residuals, cotangent):
    x, codebooks, codes = residuals
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    def body(codebooks_bar, chunk):
        x, entries_bar = chunk
        p = jax.nn.softmax(product("bckd,knd->bckn", x, codebooks))
        choice_bar = product("bckd,knd->bckn", entries_bar, codebooks)
        logits_bar = p * (choice_bar - jnp.sum(p * choice_bar, -1, keepdims=True))
        codebooks_bar = codebooks_bar + product("bckn,bckd->knd", logits_bar, x)
        return codebooks_bar, product("bckn,knd->bckd", logits_bar, codebooks)

    _, pull_back = jax.vjp(lambda codebooks: lookup(codebooks, codes), codebooks)
    (chosen_bar,) = pull_back(cotangent)
    chunks = _chunked(x, codebooks, chunk_tokens), _chunked(cotangent, codebooks, chunk_tokens)
    codebooks_bar, x_bar = jax.lax.scan(body, chosen_bar, chunks)
    return _unchunked(x_bar), codebooks_bar, None


_soft_lookup.defvjp(_soft_lookup_forward, _soft_lookup_backward)


def _chunked(
    x: Shaped[Array, "B T *s"], codebooks: Float[Array, "K N d"], chunk_tokens: int
) -> Shaped[Array, "n B c *s"]:
    """Cuts the positions, not the batch, so that a batch sharded over devices stays sharded."""
    B, T = x.shape[:2]
    chunk_tokens = chunk_tokens * FULL_CHUNK_ENTRIES // max(codebooks.shape[1], FULL_CHUNK_ENTRIES)
    positions = max(c for c in range(1, T + 1) if T % c == 0 and (c == 1 or c * B <= chunk_tokens))
    return x.reshape(B, T // positions, positions, *x.shape[2:]).swapaxes(0, 1)


def _unchunked(x: Array) -> Array:
    """Inverse of `_chunked`."""
    n, B, c = x.shape[:3]
    return x.swapaxes(0, 1).reshape(B, n * c, *x.shape[3:])
