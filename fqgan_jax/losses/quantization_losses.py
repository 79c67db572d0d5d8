"""The tokenizer's losses of latents, codebook entries and their soft assignment (paper sections 3.1 and 3.3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.losses import rows
from fqgan_jax.models.distances import l2_normalize


@rows.tokenizer("codebook", always=True)
def codebook_loss(*, entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"], **_) -> Float[Array, " K"]:
    """Moves entries to latents: mean (entry - sg latent)^2 per sub-codebook (van den Oord et al. 2017)."""
    return jnp.mean((entries - jax.lax.stop_gradient(latents)) ** 2, axis=(0, 1, 2, 4))


@rows.tokenizer("commitment", always=True)
def commitment_loss(
    *, entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"], **_
) -> Float[Array, " K"]:
    """Moves latents to entries: mean (sg entry - latent)^2 per sub-codebook, without the customary factor 0.25."""
    return jnp.mean((jax.lax.stop_gradient(entries) - latents) ** 2, axis=(0, 1, 2, 4))


@rows.tokenizer("entropy", always=True)
def entropy_loss(
    *, token_entropy: Float[Array, " K"] | None, mean_probability: Float[Array, "K N"] | None, **_
) -> Float[Array, " K"] | None:
    """Mean entropy of a token's soft assignment minus the entropy of the mean assignment, in nats (section 3.1).

    Low values mean confident assignments and evenly used entries. Quantizers without a soft assignment have none.
    """
    if token_entropy is None or mean_probability is None:
        return None
    return token_entropy + jnp.sum(mean_probability * jnp.log(mean_probability + 1e-5), axis=-1)


@rows.tokenizer("disentanglement", always=True)
def disentanglement_loss(*, quantized: Float[Array, "B h w K d"], **_) -> Float[Array, ""]:
    """Keeps sub-codebooks from learning the same thing (section 3.3); 0 for K = 1.

    Mean over the K(K-1)/2 pairs and over positions of the squared cosine between quantized latents.
    """
    K = quantized.shape[-2]
    if K == 1:
        return jnp.zeros((), quantized.dtype)
    unit = l2_normalize(quantized)  # with a zero gradient at zero, which quantizers without normalization can reach
    cosines = jnp.einsum("bhwkd,bhwjd->bhwkj", unit, unit)
    first, second = jnp.triu_indices(K, 1)
    return jnp.mean(cosines[..., first, second] ** 2)
