"""The tokenizer's losses: unweighted, pure."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fqgan_jax.models.quantizers import l2_normalize


def l2_loss(reconstruction: Float[Array, "B H W 3"], images: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Mean squared error over all elements, images in [-1, 1]."""
    return jnp.mean((reconstruction - images) ** 2)


def perceptual_loss(
    module: nn.Module, params: PyTree, reconstruction: Float[Array, "B H W 3"], images: Float[Array, "B H W 3"]
) -> Float[Array, " B"]:
    """LPIPS of each pair, images in [-1, 1]; the gradient reaches the reconstruction alone."""
    return module.apply({"params": params}, reconstruction, jax.lax.stop_gradient(images))


def codebook_loss(entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"]) -> Float[Array, " K"]:
    """Moves entries to latents: mean (entry - sg latent)^2, over everything but K (van den Oord et al. 2017)."""
    return jnp.mean((entries - jax.lax.stop_gradient(latents)) ** 2, axis=(0, 1, 2, 4))


def commitment_loss(entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"]) -> Float[Array, " K"]:
    """Moves latents to entries: mean (sg entry - latent)^2, without its customary factor 0.25."""
    return jnp.mean((jax.lax.stop_gradient(entries) - latents) ** 2, axis=(0, 1, 2, 4))


def entropy_loss(token_entropy: Float[Array, " K"], mean_probability: Float[Array, "K N"]) -> Float[Array, " K"]:
    """Sure about each token, even use of all entries: mean token entropy minus entropy of the mean, in nats."""
    return token_entropy + jnp.sum(mean_probability * jnp.log(mean_probability + 1e-5), axis=-1)


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


def info_nce_loss(predictions: Float[Array, "B W"], targets: Float[Array, "B W"]) -> Float[Array, ""]:
    """InfoNCE over the batch on cosine similarities, no temperature, predictions as rows (van den Oord et al. 2018)."""
    similarities = l2_normalize(predictions) @ l2_normalize(targets).T
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarities, axis=-1)))
