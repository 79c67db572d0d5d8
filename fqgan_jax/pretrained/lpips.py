"""VGG16 (Simonyan & Zisserman 2015) and LPIPS, the perceptual distance on its features (Zhang et al. 2018)."""

from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import Rule, layer
from fqgan_jax.pretrained.tensors import TENSORS, import_tensors, read_tensors
from fqgan_jax.pretrained.weights import find_weights

Dtype = jnp.dtype

# Widths of the convolutions between two poolings; the features are taken after the last of each stage.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10

LPIPS_WEIGHTS = ("vgg16", "lpips-vgg16")  # the names of its weights: the network, and the heads
LPIPS_RULES = (
    *layer("vgg/features{index}", "features.{index}."),
    Rule("head{stage}", "lin{stage}.model.1.weight"),
)


class VGG16(nn.Module):
    """Features after relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w c"], ...]:
        """Returns the features of each stage."""
        features, index = [], 0
        for stage, widths in enumerate(STAGES):
            if stage:
                x = nn.max_pool(x, (2, 2), (2, 2))
                index += 1
            for width in widths:
                # Named by the index among torchvision's layers, which counts ReLU and pooling too.
                x = nn.relu(nn.Conv(width, (3, 3), padding=1, dtype=self.dtype, name=f"features{index}")(x))
                index += 2
            features.append(x)
        return tuple(features)


class LPIPS(nn.Module):
    """Distance of two batches of images in [-1, 1], one number an image; no dropout.

    Convolutions run in `dtype`; the normalized differences, their weights and the sums in float32.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, a: Float[Array, "B H W 3"], b: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Returns the distance of each pair of images."""
        vgg = VGG16(dtype=self.dtype, name="vgg")
        distance = jnp.zeros(a.shape[0])
        for stage, (x, y) in enumerate(zip(vgg(_normalized(a)), vgg(_normalized(b)), strict=True)):
            width = x.shape[-1]
            head = self.param(f"head{stage}", nn.initializers.constant(1 / width), (1, width, 1, 1))[0, :, 0, 0]
            distance += jnp.mean((_unit(x) - _unit(y)) ** 2 @ head, axis=(1, 2))
        return distance


def _normalized(images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Returns images normalized for VGG16, float32."""
    return (images.astype(jnp.float32) - jnp.array(SHIFT)) / jnp.array(SCALE)


def _unit(x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
    """Scales the channels of each position to unit length, float32."""
    x = x.astype(jnp.float32)
    squares = jnp.sum(x**2, axis=-1, keepdims=True)
    # The floor, far below EPSILON squared, keeps the root's gradient finite if no channel is active.
    return x / (jnp.sqrt(jnp.maximum(squares, 1e-30)) + EPSILON)


def import_lpips(vgg: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray]) -> dict:
    """Parameters of `LPIPS` (nested, float32) from torchvision's VGG16 (`features.N.*`) and published heads.

    Raises:
      UserError: tensors that are missing, unexpected or mis-shaped; a head with negative weights.
    """
    params = import_tensors(
        dict(vgg) | dict(heads), LPIPS_RULES, LPIPS(), image_size=32, num_inputs=2, model="VGG16 and the LPIPS heads"
    )
    negative = [name for name in heads if np.min(heads[name]) < 0]
    if negative:
        raise UserError(f"The LPIPS heads {', '.join(negative)} have negative weights: this is not the published file.")
    return params


def load_lpips(vgg: Path | None = None, heads: Path | None = None) -> dict:
    """Loads the parameters of `LPIPS` from two files (safetensors or PyTorch), by default those in the cache.

    Raises:
      UserError: also if a file is missing or damaged.
    """
    vgg = vgg or find_weights(LPIPS_WEIGHTS[0]) / TENSORS
    heads = heads or find_weights(LPIPS_WEIGHTS[1]) / TENSORS
    return import_lpips(read_tensors(vgg, unused=("classifier.",)), read_tensors(heads))
