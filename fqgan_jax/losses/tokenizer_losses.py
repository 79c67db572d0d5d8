"""The tokenizer's losses (paper section 3). Every row takes the fields of `TokenizerOutputs` that it needs.

Beside those it may take `images` [B, H, W, 3] in [-1, 1], `codes` [B, h, w, K], `targets` (the teachers' features, one
array [B, W] or None per sub-codebook) and `perceptual_distance` (a function of two batches of images, or None).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.losses import rows
from fqgan_jax.models.distances import l2_normalize


@rows.tokenizer("reconstruction", always=True)
def l2_loss(*, reconstruction: Float[Array, "B H W 3"], images: Float[Array, "B H W 3"], **_) -> Float[Array, ""]:
    """Mean squared error over all elements."""
    return jnp.mean((reconstruction - images) ** 2)


@rows.tokenizer("perceptual")
def perceptual_loss(
    *,
    reconstruction: Float[Array, "B H W 3"],
    images: Float[Array, "B H W 3"],
    perceptual_distance: Callable[[Array, Array], Float[Array, " B"]],
    **_,
) -> Float[Array, ""]:
    """Mean perceptual distance to the originals (LPIPS, Zhang et al. 2018)."""
    return jnp.mean(perceptual_distance(reconstruction, jax.lax.stop_gradient(images)))


@rows.tokenizer("codebook", always=True)
def codebook_loss(*, entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"], **_) -> Float[Array, " K"]:
    """Moves entries to latents: mean (entry - sg latent)^2 per sub-codebook (van den Oord et al. 2017)."""
    return jnp.mean((entries - jax.lax.stop_gradient(latents)) ** 2, axis=(0, 1, 2, 4))


@rows.tokenizer("commitment", always=True)
def commitment_loss(
    *, entries: Float[Array, "B h w K d"], latents: Float[Array, "B h w K d"], **_
) -> Float[Array, " K"]:
    """Moves latents to entries: mean (sg entry - latent)^2 per sub-codebook, without the customary factor 0.25."""
    return jnp.mean((jax.lax.stop_gradient(entries) - latents) ** 2, axis=(0, 1, 2, 4))


@rows.tokenizer("entropy", always=True)
def entropy_loss(
    *, token_entropy: Float[Array, " K"] | None, mean_probability: Float[Array, "K N"] | None, **_
) -> Float[Array, " K"] | None:
    """Mean entropy of a token's soft assignment minus the entropy of the mean assignment, in nats (section 3.1).

    Low values mean confident assignments and evenly used entries. Quantizers without a soft assignment have none.
    """
    if token_entropy is None or mean_probability is None:
        return None
    return token_entropy + jnp.sum(mean_probability * jnp.log(mean_probability + 1e-5), axis=-1)


@rows.tokenizer("disentanglement", always=True)
def disentanglement_loss(*, quantized: Float[Array, "B h w K d"], **_) -> Float[Array, ""]:
    """Keeps sub-codebooks from learning the same thing (section 3.3); 0 for K = 1.

    Mean over the K(K-1)/2 pairs and over positions of the squared cosine between quantized latents.
    """
    K = quantized.shape[-2]
    if K == 1:
        return jnp.zeros((), quantized.dtype)
    unit = l2_normalize(quantized)  # with a zero gradient at zero, which quantizers without normalization can reach
    cosines = jnp.einsum("bhwkd,bhwjd->bhwkj", unit, unit)
    first, second = jnp.triu_indices(K, 1)
    return jnp.mean(cosines[..., first, second] ** 2)


@rows.tokenizer("feature", always=True, options=("feature_group",))
def feature_loss(
    *,
    predictions: Sequence[Float[Array, "B W"] | None],
    targets: Sequence[Float[Array, "B W"] | None],
    feature_group: int,
    **_,
) -> Float[Array, " teachers"] | None:
    """Prediction of the teachers' features (section 3.2), one InfoNCE loss per sub-codebook that has a teacher.

    `feature_group` examples at a time contrast with one another (published: a device's share); 0: the whole batch.
    """
    values = []
    for prediction, target in zip(predictions, targets, strict=True):
        if prediction is not None:
            groups = (-1, feature_group or len(target))
            grouped = [x.reshape(*groups, x.shape[-1]) for x in (prediction, target)]
            values.append(jnp.mean(jax.vmap(info_nce)(*grouped)))
    return jnp.stack(values) if values else None


def info_nce(predictions: Float[Array, "B W"], targets: Float[Array, "B W"]) -> Float[Array, ""]:
    """InfoNCE over the batch on cosine similarities, no temperature, predictions as rows (van den Oord et al. 2018)."""
    similarities = l2_normalize(predictions) @ l2_normalize(targets).T
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarities, axis=-1)))
