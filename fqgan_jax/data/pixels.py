"""Pixels as files hold them and as the networks see them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def to_float(images: UInt8[np.ndarray, "*s"] | UInt8[Array, "*s"]) -> Float[np.ndarray, "*s"] | Float[Array, "*s"]:
    """[0, 255] to float32 [-1, 1]; NumPy's stay NumPy's, JAX's JAX's."""
    return images.astype(np.float32) / 127.5 - 1


def to_uint8(images: Float[np.ndarray, "*s"] | Float[Array, "*s"]) -> UInt8[np.ndarray, "*s"] | UInt8[Array, "*s"]:
    """[-1, 1] to [0, 255] as ADM's evaluation does: clip(127.5 x + 128, 0, 255), truncated; JAX's stay JAX's."""
    values = (images.astype(np.float32) * 127.5 + 128).clip(0, 255)
    # Truncated by name: XLA drops a conversion to integers that is followed by one back.
    return (jnp.floor if isinstance(images, jax.Array) else np.floor)(values).astype(np.uint8)
