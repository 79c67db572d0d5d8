"""Where the tokenizer's loss terms get their weights and their names (paper section 3.5)."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.losses.tokenizer_losses import (
    codebook_loss,
    commitment_loss,
    disentanglement_loss,
    entropy_loss,
    info_nce_loss,
)
from fqgan_jax.models.quantizers import QuantizerOutput

Terms = dict[str, Array]


def quantization_terms(quantized: QuantizerOutput) -> Terms:
    """What depends on latents and codes alone; one value per sub-codebook, or one for all."""
    return {
        "codebook": codebook_loss(quantized.entries, quantized.latents),
        "commitment": commitment_loss(quantized.entries, quantized.latents),
        "entropy": entropy_loss(quantized.token_entropy, quantized.mean_probability),
        "disentanglement": disentanglement_loss(quantized.quantized),
    }


def feature_terms(
    predicted: Sequence[Float[Array, "B W"] | None], targets: Sequence[Float[Array, "B W"] | None], group: int
) -> Terms:
    """Prediction of the teachers' features, one value per sub-codebook that has a teacher.

    `group` examples at a time contrast with one another (a device's share, as published); 0: the whole batch.
    """
    pairs = [pair for pair in zip(predicted, targets, strict=True) if pair[0] is not None]
    grouped = lambda x: x.reshape(-1, group or len(x), x.shape[-1])
    losses = [jnp.mean(jax.vmap(info_nce_loss)(grouped(ours), grouped(theirs))) for ours, theirs in pairs]
    return {"feature": jnp.stack(losses)} if losses else {}


def weighted_sum(terms: Terms, weights: Mapping[str, float]) -> Float[Array, ""]:
    """The sum of all terms times their weights; values per sub-codebook are summed."""
    return sum(weights[name] * jnp.sum(term) for name, term in terms.items())
