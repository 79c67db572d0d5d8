"""How gradients pass through a choice of entries, which has none of its own.

`gradients` is the table that the config field `model.gradient` chooses from. A row is a function of latents and their
entries that returns the entries, with a gradient to the latents.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.config.registry import Registry
from fqgan_jax.models.quantizers.distances import l2_normalize

Vectors = Float[Array, "*s d"]

gradients: Registry[Callable[[Vectors, Vectors], Vectors]] = Registry("gradient of a quantizer")


@gradients("straight_through")
def straight_through(latents: Vectors, entries: Vectors) -> Vectors:
    """The latents get the gradient of the entries as it is (van den Oord et al. 2017)."""
    return latents + jax.lax.stop_gradient(entries - latents)


@gradients("rotation")
def rotation(latents: Vectors, entries: Vectors) -> Vectors:
    """The latents get the gradient turned and scaled as their entry is to them (Fifty et al. 2024, section 4).

    The map from latent z to entry c is (|c| / |z|) R z with R = 1 - 2 w w^T + 2 q z^T, q and z being the unit vectors
    of c and z, and w that of their sum. It is constant in the backward pass.
    """
    z, q = (jax.lax.stop_gradient(l2_normalize(x)) for x in (latents, entries))
    w = l2_normalize(z + q)
    scale = jax.lax.stop_gradient(_norm(entries) / jnp.maximum(_norm(latents), 1e-12))
    reflected = latents - 2 * w * _dot(w, latents) + 2 * q * _dot(z, latents)
    return scale * reflected


def _norm(x: Vectors) -> Float[Array, "*s 1"]:
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


def _dot(x: Vectors, y: Vectors) -> Float[Array, "*s 1"]:
    return jnp.sum(x * y, axis=-1, keepdims=True)
