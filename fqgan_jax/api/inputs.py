"""Checks of what users pass to models, before anything is computed.

Each function returns the checked values as a JAX array. The values of NumPy arrays are checked on the host, those of
JAX arrays by one reduction on the device, which blocks until it is done. uint8 images need no check of their values.
Under a JAX transformation (`jax.jit`) only shapes and types are checked, because values are not known there.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from fqgan_jax.data.pixels import to_float
from fqgan_jax.errors import UserError, check

Images = UInt8[np.ndarray, "B H W 3"] | Float[np.ndarray, "B H W 3"] | Float[Array, "B H W 3"]
Codes = Int[np.ndarray, "B h w K"] | Int[Array, "B h w K"]
Labels = Sequence[int] | Int[np.ndarray, " B"] | Int[Array, " B"]

# Tolerance for images outside [-1, 1], because of rounding.
TOLERANCE = 1e-3


def checked_images(images: Images, downsampling: int) -> Float[Array, "B H W 3"]:
    """Returns images as floats in [-1, 1].

    Args:
      images: uint8 in [0, 255] or floats in [-1, 1].
      downsampling: f, which must divide both sides.

    Raises:
      UserError: another shape, type or range.
    """
    images = _as_array(images)
    check(
        images.ndim == 4 and images.shape[-1] == 3 and min(images.shape[1:3]) > 0,
        f"Images must be [B, H, W, 3], not {list(images.shape)}.",
    )
    check(
        images.shape[1] % downsampling == 0 and images.shape[2] % downsampling == 0,
        f"Images must be [B, H, W, 3] with H and W divisible by {downsampling}, not {list(images.shape)}.",
    )
    if images.dtype == np.uint8:
        return to_float(jnp.asarray(images))
    check(
        jnp.issubdtype(images.dtype, jnp.floating),
        f"Images must be uint8 in [0, 255] or floats in [-1, 1], not {images.dtype}.",
    )
    low, high = _value_range(images) or (0.0, 0.0)
    check(low == low, "The images hold NaN.")
    check(
        low >= -1 - TOLERANCE and high <= 1 + TOLERANCE,
        f"Float images must lie in [-1, 1], these lie in [{low:.4g}, {high:.4g}]: scale them, or give uint8 in "
        "[0, 255].",
    )
    return jnp.asarray(images)


def checked_codes(codes: Codes, *, num_codebooks: int, codebook_size: int) -> Int[Array, "B ... K"]:
    """Returns codes as int32; the axes between the first and the last are the caller's to check.

    Raises:
      UserError: another number of sub-codebooks, or a code that is not an entry of its sub-codebook.
    """
    codes = _as_array(codes)
    check(jnp.issubdtype(codes.dtype, jnp.integer), f"Codes must be integers, not {codes.dtype}.")
    check(
        codes.ndim >= 2 and codes.shape[-1] == num_codebooks,
        f"Codes must have {num_codebooks} sub-codebooks in their last axis; these have the shape {list(codes.shape)}.",
    )
    low, high = _value_range(codes) or (0, 0)
    check(
        low >= 0 and high < codebook_size,
        f"Codes must lie between 0 and {codebook_size - 1}; these lie between {low:.0f} and {high:.0f}.",
    )
    return jnp.asarray(codes, jnp.int32)


def checked_labels(labels: Labels, num_classes: int) -> Int[Array, " B"]:
    """Returns class labels as int32.

    Raises:
      UserError: another shape or type, or a label that is no class.
    """
    labels = np.asarray(labels, np.int32) if isinstance(labels, Sequence) and not labels else _as_array(labels)
    check(labels.ndim == 1, f"Labels must be [B], one class number per sample, not {list(labels.shape)}.")
    check(jnp.issubdtype(labels.dtype, jnp.integer), f"Labels must be integers, not {labels.dtype}.")
    low, high = _value_range(labels) or (0, 0)
    check(
        low >= 0 and high < num_classes,
        f"Labels must lie between 0 and {num_classes - 1}; these lie between {low:.0f} and {high:.0f}.",
    )
    return jnp.asarray(labels, jnp.int32)


def check_key(key: Key[Array, ""]) -> None:
    """Raises `UserError` unless this is one random key, of `jax.random.key` or `jax.random.PRNGKey`."""
    if isinstance(key, jax.Array):
        is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
        is_raw = key.dtype == jnp.uint32 and key.ndim == 1
        if is_typed or is_raw:
            return
    raise UserError(f"The key must be one key of jax.random.key(seed), not {_name(key)}.")


def _as_array(values) -> np.ndarray | Array:
    return values if isinstance(values, np.ndarray | jax.Array) else np.asarray(values)


def _value_range(values: np.ndarray | Array) -> tuple[float, float] | None:
    """The smallest and the largest value, both NaN if any is; None if there are no values or JAX is tracing."""
    if isinstance(values, jax.core.Tracer) or not values.size:
        return None
    if isinstance(values, jax.Array):
        low, high = jax.device_get(_smallest_and_largest(values))
    else:
        low, high = values.min(), values.max()
    return float(low), float(high)


@jax.jit
def _smallest_and_largest(values: Array) -> tuple[Array, Array]:
    return jnp.min(values), jnp.max(values)


def _name(value) -> str:
    if isinstance(value, jax.Array):
        return f"an array {value.dtype}{list(value.shape)}"
    return f"{value!r}"
