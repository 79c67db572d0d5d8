"""PSNR and SSIM of reconstructions."""

import dm_pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def to_unit_range(images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """[-1, 1] to [0, 1], clipped."""
    return jnp.clip((images + 1) / 2, 0, 1)


def psnr(first: Float[Array, "B H W 3"], second: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Peak signal-to-noise ratio of each pair in dB, images in [-1, 1]."""
    return dm_pix.psnr(to_unit_range(first), to_unit_range(second))


def ssim(first: Float[Array, "B H W 3"], second: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Structural similarity of each pair, images in [-1, 1] (Wang et al. 2004: Gaussian window 11, data range 1)."""
    return jax.vmap(dm_pix.ssim)(to_unit_range(first), to_unit_range(second))
