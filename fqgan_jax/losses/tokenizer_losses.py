"""The tokenizer's losses of reconstructions and predicted features (paper sections 3.2 and 3.5).

Every row takes the fields of `TokenizerOutputs` that it needs. Beside those it may take `images` [B, H, W, 3] in
[-1, 1], `codes` [B, h, w, K], `targets` (the teachers' features, one array [B, W] or None per sub-codebook),
`perceptual_distance` (a function of two batches of images, or None) and `kept` (see `quantization_losses`).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.losses import rows
from fqgan_jax.models.quantizers.distances import l2_normalize


@rows.tokenizer("reconstruction", always=True)
def l2_loss(*, reconstruction: Float[Array, "B H W 3"], images: Float[Array, "B H W 3"], **_) -> Float[Array, ""]:
    """Mean squared error over all elements."""
    return jnp.mean((reconstruction - images) ** 2)


@rows.tokenizer("perceptual", options=("perceptual_network",))
def perceptual_loss(
    *,
    reconstruction: Float[Array, "B H W 3"],
    images: Float[Array, "B H W 3"],
    perceptual_distance: Callable[[Array, Array], Float[Array, " B"]],
    **_,
) -> Float[Array, ""]:
    """Mean perceptual distance to the originals, by the network that the option `perceptual_network` names."""
    return jnp.mean(perceptual_distance(reconstruction, jax.lax.stop_gradient(images)))


@rows.tokenizer("feature", always=True, options=("feature_group",))
def feature_loss(
    *,
    predictions: Sequence[Float[Array, "B W"] | None],
    targets: Sequence[Float[Array, "B W"] | None],
    feature_group: int,
    kept: Float[Array, " K"] | None = None,
    **_,
) -> Float[Array, " teachers"] | None:
    """Prediction of the teachers' features (section 3.2), one InfoNCE loss per sub-codebook that has a teacher.

    `feature_group` examples at a time contrast with one another (published: a device's share); 0: the whole batch.
    Sub-codebooks that nested training leaves out in this step (`kept` is 0) have none.
    """
    values = []
    for k, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        if prediction is not None:
            assert target is not None
            groups = (-1, feature_group or len(target))
            grouped = [x.reshape(*groups, x.shape[-1]) for x in (prediction, target)]
            value = jnp.mean(jax.vmap(info_nce)(*grouped))
            values.append(value if kept is None else value * kept[k])
    return jnp.stack(values) if values else None


def info_nce(predictions: Float[Array, "B W"], targets: Float[Array, "B W"]) -> Float[Array, ""]:
    """InfoNCE over the batch on cosine similarities, no temperature, predictions as rows (van den Oord et al. 2018)."""
    similarities = l2_normalize(predictions) @ l2_normalize(targets).T
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(similarities, axis=-1)))
