"""Latent perturbation: the decoder learns to bear wrong codes, such as a generator draws (arXiv 2503.08354)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perturbation:
    """How many codes are replaced before decoding, and by which.

    Attributes:
      tokens: probability of each code of a perturbed image to be replaced (alpha).
      images: probability of each image to be perturbed (beta).
      nearest: a replacement is one of so many entries nearest to the latent (delta).
    """

    tokens: float
    images: float
    nearest: int


def replaced(
    key: Key[Array, ""],
    quantized: Float[Array, "B h w K d"],
    near_entries: Float[Array, "B h w K d"],
    *,
    perturbation: Perturbation,
) -> Float[Array, "B h w K d"]:
    """Puts near entries in the place of some quantized latents.

    Args:
      key: random key of the choice.
      quantized: the nearest entries.
      near_entries: their possible replacements.
      perturbation: how many are replaced.
    """
    by_image, by_token = jax.random.split(key)
    chosen = jax.random.bernoulli(by_image, perturbation.images, (len(quantized), 1, 1, 1))
    chosen &= jax.random.bernoulli(by_token, perturbation.tokens, quantized.shape[:-1])
    return jnp.where(chosen[..., None], near_entries, quantized)
