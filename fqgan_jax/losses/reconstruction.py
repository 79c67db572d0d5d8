"""Pixel losses."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def l2_loss(reconstruction: Float[Array, "B H W 3"], images: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Mean squared error over all elements, images in [-1, 1]."""
    return jnp.mean((reconstruction - images) ** 2)
