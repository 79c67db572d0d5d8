"""The network that describes images for FID and other feature metrics: Inception."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh
from jaxtyping import Array, PyTree, UInt8

from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics import FeatureSet, ImageFeatures
from fqgan_jax.pretrained import inception
from fqgan_jax.pretrained.weights import networks, sha256_of
from fqgan_jax.sharding.passes import rows_of_examples

RESIZE = f"bilinear to {inception.SIZE} (source = target * in / out, no half-pixel offset, no antialiasing)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A frozen network that describes images.

    Attributes:
      apply: pure function of parameters and pixels (uint8 `[B, H, W, 3]`).
      params: its parameters.
      sha256: SHA-256 of the file they come from.
    """

    apply: Callable[[PyTree, UInt8[Array, "B H W 3"]], ImageFeatures]
    params: PyTree
    sha256: str

    def protocol(self) -> dict:
        """Returns what its numbers depend on."""
        return {"network": inception.NAME, "sha256": self.sha256, "resize": RESIZE, "input": "(pixel - 128) / 128"}


def inception_features(params: PyTree, pixels: UInt8[Array, "B H W 3"]) -> ImageFeatures:
    """Returns features of the FID's Inception network; logits without bias."""
    features = inception.Inception().apply({"params": params}, inception.preprocess(pixels))
    return ImageFeatures(features.pool, features.spatial, features.logits_without_bias)


def load_feature_network(file: Path | None = None) -> FeatureNetwork:
    """Loads the Inception network from a published file, or from the cache if none is given.

    Raises:
      UserError: missing or damaged weights.
    """
    params = inception.load_inception(file)
    sha256 = networks[inception.NAME].published_sha256 if file is None else sha256_of(file)
    return FeatureNetwork(apply=inception_features, params=params, sha256=sha256)


def features_of(
    images: ImageSet, network: FeatureNetwork, *, batch_size: int, title: str, mesh: Mesh | None = None
) -> FeatureSet:
    """Computes features of every readable image in one pass.

    Args:
      images: the images to describe.
      network: network that computes the features.
      batch_size: size of the global batch.
      title: title of the progress bar.
      mesh: the devices to use; by default all devices.
    """
    collected = FeatureSet()

    def step(params, batch):
        return network.apply(params, batch["image"])

    for rows in rows_of_examples(
        step, network.params, images.batches, batch_size=batch_size, count=len(images), title=title, mesh=mesh
    ):
        collected.add(rows)
    return collected
