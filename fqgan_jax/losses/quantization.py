"""Losses that tie latents and codebooks together, one value per sub-codebook (paper section 3.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def codebook_loss(entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"]) -> Float[Array, " K"]:
    """Moves entries to latents: mean (entry - sg latent)^2, over everything but K (van den Oord et al. 2017)."""
    return jnp.mean((entries - jax.lax.stop_gradient(latents)) ** 2, axis=(0, 1, 2, 4))


def commitment_loss(entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"]) -> Float[Array, " K"]:
    """Moves latents to entries: mean (sg entry - latent)^2, without its customary factor 0.25."""
    return jnp.mean((jax.lax.stop_gradient(entries) - latents) ** 2, axis=(0, 1, 2, 4))


def entropy_loss(token_entropy: Float[Array, " K"], mean_probability: Float[Array, "K N"]) -> Float[Array, " K"]:
    """Sure about each token, even use of all entries: mean token entropy minus entropy of the mean, in nats."""
    return token_entropy + jnp.sum(mean_probability * jnp.log(mean_probability + 1e-5), axis=-1)
