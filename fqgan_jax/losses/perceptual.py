"""Perceptual distance to the original (LPIPS, Zhang et al. 2018)."""

import jax
from jaxtyping import Array, Float, PyTree

from fqgan_jax.teachers.vgg import LPIPS


def perceptual_loss(
    module: LPIPS, params: PyTree, reconstruction: Float[Array, "B H W 3"], images: Float[Array, "B H W 3"]
) -> Float[Array, " B"]:
    """LPIPS of each pair, images in [-1, 1]; the gradient reaches the reconstruction alone."""
    return module.apply({"params": params}, reconstruction, jax.lax.stop_gradient(images))
