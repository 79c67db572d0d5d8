"""Networks of the perceptual loss: a distance of two batches of images. A network is one row of `perceptual_networks`.

    perceptual_networks.add("mine", PerceptualNetwork(module=MyDistance(), load=load_mine))

is then a value of `config.loss.perceptual_network`.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fqgan_jax.config import Registry
from fqgan_jax.models.applying import apply
from fqgan_jax.pretrained import efficientnet_lite
from fqgan_jax.pretrained.lpips import LPIPS, LPIPS_WEIGHTS, load_lpips

Dtype = jnp.dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerceptualNetwork:
    """One row.

    Attributes:
      module: maps two batches of images [B, H, W, 3] in [-1, 1] to their distances [B]. It has a field `dtype`: it
        computes in the config's `frozen_dtype`.
      load: returns its parameters (nested, float32).
      weights: names of the frozen networks whose weights `load` reads.
    """

    module: nn.Module
    load: Callable[[], PyTree]
    weights: tuple[str, ...] = ()

    def with_dtype(self, dtype: str) -> "PerceptualNetwork":
        """Returns the same network computing in "float32" or "bfloat16"."""
        return dataclasses.replace(self, module=self.module.clone(dtype=jnp.dtype(dtype)))

    def distance(
        self, params: PyTree, reconstruction: Float[Array, "B H W 3"], images: Float[Array, "B H W 3"]
    ) -> Float[Array, " B"]:
        """Returns the distance of each pair of images; pure."""
        return apply(self.module, params, reconstruction, images)

    def init(self, key: jax.Array) -> PyTree:
        """Returns random parameters (nested, float32), for benchmarks and compilation without published weights."""
        images = jnp.zeros((1, 32, 32, 3))
        return self.module.init(key, images, images)["params"]


class LogitDistance(nn.Module):
    """Mean squared difference of a classifier's logits (MaskGIT, Chang et al. 2022; MAGVIT, Yu et al. 2023).

    Attributes:
      dtype: data type of the classifier's computation; the differences are float32.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, a: Float[Array, "B H W 3"], b: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Returns the distance of each pair of images in [-1, 1]."""
        classifier = efficientnet_lite.EfficientNetLite0(dtype=self.dtype, name="classifier")
        first, second = (classifier(efficientnet_lite.preprocess(images)) for images in (a, b))
        return jnp.mean((first - second) ** 2, axis=-1)


def _load_classifier() -> PyTree:
    return {"classifier": efficientnet_lite.load_efficientnet_lite()}


# config field `loss.perceptual_network`
perceptual_networks: Registry[PerceptualNetwork] = Registry("perceptual network")
perceptual_networks.add("lpips", PerceptualNetwork(module=LPIPS(), load=load_lpips, weights=LPIPS_WEIGHTS))
perceptual_networks.add(
    efficientnet_lite.NAME,
    PerceptualNetwork(module=LogitDistance(), load=_load_classifier, weights=(efficientnet_lite.NAME,)),
)
