"""The tokenizer's losses of latents, codebook entries and their soft assignment (paper sections 3.1 and 3.3).

In a step of nested training `kept` [K] is 1 for the sub-codebooks that count and 0 for those left out, whose losses are
0; None keeps all.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.losses import rows
from fqgan_jax.models.quantizers.distances import l2_normalize

Entries = Float[Array, "B h w K d"]
PerCodebook = Float[Array, " K"]


@rows.tokenizer("codebook", always=True)
def codebook_loss(
    *, entries: Entries | None, latents: Entries, kept: PerCodebook | None = None, **_
) -> PerCodebook | None:
    """Moves entries to latents: mean (entry - sg latent)^2 per sub-codebook (van den Oord et al. 2017)."""
    return None if entries is None else _mean_square(entries - jax.lax.stop_gradient(latents), kept)


@rows.tokenizer("commitment", always=True)
def commitment_loss(
    *, entries: Entries | None, latents: Entries, kept: PerCodebook | None = None, **_
) -> PerCodebook | None:
    """Moves latents to entries: mean (sg entry - latent)^2 per sub-codebook, without the customary factor 0.25."""
    return None if entries is None else _mean_square(jax.lax.stop_gradient(entries) - latents, kept)


@rows.tokenizer("soft_entries")
def soft_entries_loss(
    *, soft_entries: Entries | None, latents: Entries, kept: PerCodebook | None = None, **_
) -> PerCodebook | None:
    """Moves latents and all entries to each other: mean (soft entry - latent)^2 (Shi et al. 2024, arXiv 2412.02692)."""
    return None if soft_entries is None else _mean_square(soft_entries - latents, kept)


@rows.tokenizer("entropy", always=True)
def entropy_loss(
    *,
    token_entropy: Float[Array, " K"] | None,
    mean_probability: Float[Array, "K *groups N"] | None,
    kept: PerCodebook | None = None,
    **_,
) -> PerCodebook | None:
    """Mean entropy of a token's soft assignment minus the entropy of the mean assignment, in nats (section 3.1).

    Low values mean confident assignments and evenly used entries. Quantizers without a soft assignment have none. The
    entropies of independent groups of dimensions add up.
    """
    if token_entropy is None or mean_probability is None:
        return None
    terms = mean_probability * jnp.log(mean_probability + 1e-5)
    return _counted(token_entropy + jnp.sum(terms, axis=tuple(range(1, terms.ndim))), kept)


@rows.tokenizer("disentanglement", always=True)
def disentanglement_loss(*, quantized: Entries, kept: PerCodebook | None = None, **_) -> Float[Array, ""]:
    """Keeps sub-codebooks from learning the same thing (section 3.3); 0 for K = 1.

    Mean over the K(K-1)/2 pairs, of which both are kept, and over positions of the squared cosine between quantized
    latents.
    """
    K = quantized.shape[-2]
    if K == 1:
        return jnp.zeros((), quantized.dtype)
    unit = l2_normalize(quantized)  # with a zero gradient at zero, which quantizers without normalization can reach
    cosines = jnp.einsum("bhwkd,bhwjd->bhwkj", unit, unit)
    first, second = jnp.triu_indices(K, 1)
    squared = cosines[..., first, second] ** 2
    if kept is None:
        return jnp.mean(squared)
    both = kept[first] * kept[second]
    return jnp.sum(jnp.mean(squared, axis=(0, 1, 2)) * both) / jnp.maximum(jnp.sum(both), 1)


def _mean_square(difference: Entries, kept: PerCodebook | None) -> PerCodebook:
    return _counted(jnp.mean(difference**2, axis=(0, 1, 2, 4)), kept)


def _counted(values: PerCodebook, kept: PerCodebook | None) -> PerCodebook:
    return values if kept is None else values * kept
