"""Conversion between the pixels of files and the inputs of networks."""

from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


@overload
def to_float(images: UInt8[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]: ...


@overload
def to_float(images: UInt8[Array, "*s"]) -> Float[Array, "*s"]: ...


def to_float(images):
    """Maps [0, 255] to float32 in [-1, 1]. NumPy arrays stay NumPy arrays, JAX arrays stay JAX arrays."""
    return images.astype(np.float32) / 127.5 - 1


@overload
def to_uint8(images: Float[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s"]: ...


@overload
def to_uint8(images: Float[Array, "*s"]) -> UInt8[Array, "*s"]: ...


def to_uint8(images):
    """Maps [-1, 1] to [0, 255]: clip(127.5 x + 128, 0, 255), truncated, as ADM does (Dhariwal & Nichol 2021).

    NumPy arrays stay NumPy arrays, JAX arrays stay JAX arrays.
    """
    values = (images.astype(np.float32) * 127.5 + 128).clip(0, 255)
    # An explicit floor: XLA drops a conversion to integers that is followed by a conversion back.
    return (jnp.floor if isinstance(images, jax.Array) else np.floor)(values).astype(np.uint8)
