"""Keeps the sub-codebooks from learning the same thing (paper section 3.3)."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def disentanglement_loss(quantized: Float[Array, "B h w K d"]) -> Float[Array, ""]:
    """Mean over the K(K-1)/2 pairs and over positions of the squared cosine between quantized latents; 0 for K = 1."""
    K = quantized.shape[-2]
    if K == 1:
        return jnp.zeros((), quantized.dtype)
    norms = jnp.linalg.norm(quantized, axis=-1, keepdims=True)
    unit = quantized / jnp.maximum(norms, 1e-8)
    cosines = jnp.einsum("bhwkd,bhwjd->bhwkj", unit, unit)
    first, second = jnp.triu_indices(K, 1)
    return jnp.mean(cosines[..., first, second] ** 2)
