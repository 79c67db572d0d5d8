"""Metrics of reconstructions: PSNR, SSIM, LPIPS and whether a classifier sees the same."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from fqgan_jax.evaluation.metrics import tables
from fqgan_jax.models.applying import apply
from fqgan_jax.pretrained import efficientnet_lite
from fqgan_jax.pretrained.lpips import LPIPS, LPIPS_WEIGHTS, load_lpips

Images = Float[Array, "B H W 3"] | Float[np.ndarray, "B H W 3"]


def to_unit_range(images: Images) -> Float[Array, "B H W 3"]:
    """Maps [-1, 1] to [0, 1], clipped."""
    return jnp.clip((images + 1) / 2, 0, 1)


@tables.reconstruction("psnr", unit="dB", better="higher")
def psnr(reconstruction: Images, original: Images) -> Float[Array, " B"]:
    """Peak signal-to-noise ratio of each pair in dB, of images in [-1, 1]."""
    return dm_pix.psnr(to_unit_range(reconstruction), to_unit_range(original))


@tables.reconstruction("ssim", better="higher")
def ssim(reconstruction: Float[Array, "B H W 3"], original: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Structural similarity of each pair, of images in [-1, 1].

    The window is a Gaussian of 11 pixels, the data range 1 (Wang et al. 2004).
    """
    return jax.vmap(dm_pix.ssim)(to_unit_range(reconstruction), to_unit_range(original))


@tables.reconstruction("lpips", better="lower", load=load_lpips, weights=LPIPS_WEIGHTS)
def lpips(
    reconstruction: Float[Array, "B H W 3"], original: Float[Array, "B H W 3"], *, params: PyTree
) -> Float[Array, " B"]:
    """Distance of VGG16's features of each pair, of images in [-1, 1] (Zhang et al. 2018)."""
    return apply(LPIPS(), params, reconstruction, original)


@tables.reconstruction(
    "class_agreement",
    better="higher",
    load=efficientnet_lite.load_efficientnet_lite,
    weights=(efficientnet_lite.NAME,),
)
def class_agreement(
    reconstruction: Float[Array, "B H W 3"], original: Float[Array, "B H W 3"], *, params: PyTree
) -> Float[Array, " B"]:
    """Whether EfficientNet-Lite0 sees the original's class of ImageNet in a reconstruction: 1 or 0 for each pair."""

    def classes(images: Array) -> Array:
        seen = efficientnet_lite.preprocess(images)
        return jnp.argmax(apply(efficientnet_lite.EfficientNetLite0(), params, seen), axis=-1)

    return (classes(reconstruction) == classes(original)).astype(jnp.float32)
