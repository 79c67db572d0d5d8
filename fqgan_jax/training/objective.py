"""Where the tokenizer's loss terms get their weights and their names."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.losses.disentanglement import disentanglement_loss
from fqgan_jax.losses.quantization import codebook_loss, commitment_loss, entropy_loss
from fqgan_jax.losses.reconstruction import l2_loss
from fqgan_jax.losses.representation import info_nce_loss
from fqgan_jax.models.tokenizer import TokenizerOutput


def tokenizer_objective(
    output: TokenizerOutput,
    images: Float[Array, "B H W 3"],
    targets: Sequence[Float[Array, "B W"] | None],
    weights: dict[str, float],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum of all terms, and the terms by name, unweighted (paper section 3.5).

    `targets` holds the teacher's features per sub-codebook. Terms with a value per sub-codebook are summed over them.
    """
    quantized = output.quantizer
    terms = {
        "reconstruction": l2_loss(output.reconstruction, images),
        "codebook": codebook_loss(quantized.entries, quantized.latents),
        "commitment": commitment_loss(quantized.entries, quantized.latents),
        "entropy": entropy_loss(quantized.token_entropy, quantized.mean_probability),
        "disentanglement": disentanglement_loss(quantized.quantized),
    }
    predicted = [pair for pair in zip(output.features, targets, strict=True) if pair[0] is not None]
    if predicted:
        terms["feature"] = jnp.stack([info_nce_loss(*pair) for pair in predicted])
    return sum(weights[name] * jnp.sum(term) for name, term in terms.items()), terms
