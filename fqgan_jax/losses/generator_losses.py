"""The generator's losses (paper section 3.4). Rows take `logits` [B, T, K, N] and `codes` [B, T, K]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.losses import rows


@rows.generator("next_code", always=True)
def next_code_loss(*, logits: Float[Array, "B T K N"], codes: Int[Array, "B T K"], **_) -> Float[Array, " K"]:
    """Cross-entropy of the true codes in nats, mean over batch and positions, one value per sub-codebook."""
    return jnp.mean(code_losses(logits, codes), axis=(0, 1))


def code_losses(logits: Float[Array, "B T K N"], codes: Int[Array, "B T K"]) -> Float[Array, "B T K"]:
    """Computes the cross-entropy of each true code in nats."""
    # The gradient of `take_along_axis` would be a scatter into a float32 array as large as the logits.
    true = codes[..., None] == jnp.arange(logits.shape[-1])
    chosen = jnp.sum(logits, axis=-1, where=true)
    return jax.nn.logsumexp(logits, axis=-1) - chosen
