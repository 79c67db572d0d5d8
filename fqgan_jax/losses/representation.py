"""Prediction of a teacher's features (paper section 3.2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.quantizer import l2_normalize


def info_nce_loss(predictions: Float[Array, "B W"], targets: Float[Array, "B W"]) -> Float[Array, ""]:
    """InfoNCE over the batch on cosine similarities, no temperature, predictions as rows (van den Oord et al. 2018)."""
    similarities = l2_normalize(predictions) @ l2_normalize(targets).T
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarities, axis=-1)))
