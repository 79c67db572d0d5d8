"""Features of images by the FID's Inception network, and what a set of images keeps of them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PyTree, UInt8
from scipy.special import softmax

from fqgan_jax.evaluation.image_set import ImageSet
from fqgan_jax.evaluation.metrics.frechet import Gaussian, RunningMoments
from fqgan_jax.evaluation.metrics.inception_score import inception_score
from fqgan_jax.evaluation.protocol import Evaluation
from fqgan_jax.pretrained import inception
from fqgan_jax.pretrained.weights import NETWORKS, sha256_of
from fqgan_jax.sharding.passes import rows_of_examples

RESIZE = f"bilinear to {inception.SIZE} (source = target * in / out, no half-pixel offset, no antialiasing)"


class ImageFeatures(NamedTuple):
    """Of a batch: features for FID, precision and recall, spatial ones for sFID, logits for the inception score."""

    pool: Float[Array, "B d"]
    spatial: Float[Array, "B s"]
    logits: Float[Array, "B c"]


class FeatureNetwork(NamedTuple):
    """A frozen network that describes images.

    Attributes:
      apply: pure function of parameters and pixels.
      params: its parameters.
      sha256: of the file they come from.
    """

    apply: Callable[[PyTree, UInt8[Array, "B H W 3"]], ImageFeatures]
    params: PyTree
    sha256: str

    def protocol(self) -> dict:
        """What makes its numbers comparable."""
        return {"network": inception.NAME, "sha256": self.sha256, "resize": RESIZE, "input": "(pixel - 128) / 128"}


def inception_features(params: PyTree, pixels: UInt8[Array, "B H W 3"]) -> ImageFeatures:
    """Features of the FID's Inception network; logits without bias."""
    features = inception.Inception().apply({"params": params}, inception.preprocess(pixels))
    return ImageFeatures(features.pool, features.spatial, features.logits_without_bias)


def load_feature_network(file: Path | None = None) -> FeatureNetwork:
    """The Inception network of a published file, by default of the cache's.

    Raises:
      UserError: no weights there, or damaged ones.
    """
    params = inception.load_inception(file)
    return FeatureNetwork(
        inception_features, params, sha256_of(file) if file else NETWORKS[inception.NAME].published_sha256
    )


class FeatureSet:
    """Features of a set of images, in their order, as they come."""

    def __init__(self):
        self._pool, self._spatial = RunningMoments(), RunningMoments()
        self._features: list[np.ndarray] = []
        self._probabilities: list[np.ndarray] = []

    def add(self, rows: ImageFeatures) -> None:
        """Counts more images (NumPy rows)."""
        self._pool.add(rows.pool)
        self._spatial.add(rows.spatial)
        self._features.append(rows.pool)
        self._probabilities.append(softmax(rows.logits.astype(np.float64), axis=1).astype(np.float32))

    def __len__(self) -> int:
        return self._pool.count

    def pool(self) -> Gaussian:
        """For FID."""
        return self._pool.gaussian()

    def spatial(self) -> Gaussian:
        """For sFID."""
        return self._spatial.gaussian()

    def features(self) -> Float[np.ndarray, "n d"]:
        """For precision and recall."""
        return np.concatenate(self._features)

    def inception_score(self) -> float:
        """In splits of 5000."""
        return inception_score(np.concatenate(self._probabilities))


def features_of(
    images: ImageSet, network: FeatureNetwork, *, batch_size: int, title: str, mesh: Mesh | None = None
) -> FeatureSet:
    """Features of every readable image, in one pass over all devices (of the mesh, where one is given)."""
    collected = FeatureSet()
    step = lambda params, batch: network.apply(params, batch["image"])
    count = len(images)
    for rows in rows_of_examples(
        step, network.params, images.batches, batch_size=batch_size, count=count, title=title, mesh=mesh
    ):
        collected.add(rows)
    return collected


class Measured(NamedTuple):
    """An evaluation and what it was made of.

    Attributes:
      evaluation: the numbers.
      features: of the measured images, None without a network.
      codes: of the measured images, None where a set of images was measured.
      labels: their classes, None where there are no codes.
    """

    evaluation: Evaluation
    features: FeatureSet | None
    codes: Int[np.ndarray, "n h w K"] | None = None
    labels: Int[np.ndarray, " n"] | None = None
