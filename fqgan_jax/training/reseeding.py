"""Moves codebook entries that are no longer used to latents of the batch."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree


def reseed(
    key: Key[Array, ""],
    params: PyTree,
    idle: Int[Array, "K N"],
    *,
    codes: Int[Array, "B h w K"],
    latents: Float[Array, "B h w K d"],
    after: int,
    kept: Float[Array, " K"] | None = None,
) -> tuple[PyTree, Int[Array, "K N"]]:
    """Moves entries that no token has used for `after` steps to random latents of this batch (Dhariwal et al. 2020).

    Args:
      key: random key of the choice.
      params: parameters of the tokenizer.
      idle: per entry, the steps since it was last used.
      codes: codes of this batch.
      latents: latents of this batch, as they are compared with the entries.
      after: steps without use after which an entry moves.
      kept: 1 for sub-codebooks that this step keeps, 0 for those it leaves out, whose entries do not wait; None: all.

    Returns:
      The parameters with the new codebooks, and the new `idle`.
    """
    K, N = idle.shape
    used = jnp.zeros((K, N), bool).at[jnp.arange(K), codes.reshape(-1, K)].set(True)
    idle = jnp.where(used, 0, idle + (1 if kept is None else kept[:, None].astype(idle.dtype)))
    tokens = latents.reshape(-1, *latents.shape[-2:])
    chosen = jax.random.randint(key, (K, N), 0, len(tokens))
    replacements = tokens[chosen, jnp.arange(K)[:, None]]
    dead = idle >= after
    codebooks = jnp.where(dead[..., None], replacements, params["quantizer"]["codebooks"])
    params = params | {"quantizer": params["quantizer"] | {"codebooks": codebooks}}
    return params, jnp.where(dead, 0, idle)
