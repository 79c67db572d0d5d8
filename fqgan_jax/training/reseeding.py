"""Gives dead codebook entries a new place: at latents of the batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

from fqgan_jax.models.quantizers import QuantizerOutput


def reseed(
    key: Key[Array, ""], params: PyTree, idle: Int[Array, "K N"], quantized: QuantizerOutput, after: int
) -> tuple[PyTree, Int[Array, "K N"]]:
    """Moves entries that no token has used for `after` steps to random latents of this batch (Dhariwal et al. 2020).

    Returns the parameters with the new codebooks, and per entry the steps since it was last used.
    """
    K, N = idle.shape
    used = jnp.zeros((K, N), bool).at[jnp.arange(K), quantized.codes.reshape(-1, K)].set(True)
    idle = jnp.where(used, 0, idle + 1)
    latents = quantized.latents.reshape(-1, *quantized.latents.shape[-2:])
    chosen = jax.random.randint(key, (K, N), 0, len(latents))
    replacements = latents[chosen, jnp.arange(K)[:, None]]
    dead = idle >= after
    codebooks = jnp.where(dead[..., None], replacements, params["quantizer"]["codebooks"])
    params = params | {"quantizer": params["quantizer"] | {"codebooks": codebooks}}
    return params, jnp.where(dead, 0, idle)
