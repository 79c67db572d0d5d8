"""Metrics of a set of images by their Inception features: FID, sFID, precision, recall and the inception score."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float
from scipy.special import softmax

from fqgan_jax.evaluation.metrics import tables
from fqgan_jax.evaluation.metrics.frechet import Gaussian, RunningMoments, frechet_distance
from fqgan_jax.evaluation.metrics.inception_score import inception_score
from fqgan_jax.evaluation.metrics.precision_recall import NEIGHBOURS, precision, recall

COMPARED_SETS = ("images", "generator")  # tasks that publish sFID, precision and recall


class ImageFeatures(NamedTuple):
    """Features of a batch.

    Attributes:
      pool: for FID, precision and recall.
      spatial: for sFID.
      logits: for the inception score.
    """

    pool: Float[Array, "B d"]
    spatial: Float[Array, "B s"]
    logits: Float[Array, "B c"]


class FeatureSet:
    """Features of a set of images, collected in their order."""

    def __init__(self):
        self._pool, self._spatial = RunningMoments(), RunningMoments()
        self._features: list[Float[np.ndarray, "n d"]] = []
        self._probabilities: list[Float[np.ndarray, "n c"]] = []

    def add(self, rows: ImageFeatures) -> None:
        """Adds the features of more images, as NumPy arrays."""
        self._pool.add(rows.pool)
        self._spatial.add(rows.spatial)
        self._features.append(rows.pool)
        self._probabilities.append(softmax(rows.logits.astype(np.float64), axis=1).astype(np.float32))

    def __len__(self) -> int:
        return self._pool.count

    def pool(self) -> Gaussian:
        """Returns mean and covariance of the pool features.

        Raises:
          UserError: fewer than two images.
        """
        return self._pool.gaussian()

    def spatial(self) -> Gaussian:
        """Returns mean and covariance of the spatial features.

        Raises:
          UserError: fewer than two images.
        """
        return self._spatial.gaussian()

    def features(self) -> Float[np.ndarray, "n d"]:
        """Returns the pool features of each image."""
        return np.concatenate(self._features)

    def probabilities(self) -> Float[np.ndarray, "n c"]:
        """Returns the class probabilities of each image."""
        return np.concatenate(self._probabilities)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference that a set of images is compared with.

    Attributes:
      pool: mean and covariance of its pool features.
      spatial: mean and covariance of its spatial features, None if stored statistics lack them.
      features: its pool features, None if there are statistics only.
      protocol: describes its origin.
    """

    pool: Gaussian
    spatial: Gaussian | None
    features: Float[np.ndarray, "n d"] | None
    protocol: dict


@tables.feature("fid", better="lower", result_names={"tokenizer": "rfid", "generator": "gfid"})
def fid(features: FeatureSet, reference: Reference) -> float:
    """Fréchet distance of the pool features (Heusel et al. 2017)."""
    return frechet_distance(features.pool(), reference.pool)


@tables.feature("sfid", better="lower", tasks=COMPARED_SETS)
def sfid(features: FeatureSet, reference: Reference) -> float:
    """Fréchet distance of the spatial features (Nash et al. 2021)."""
    if reference.spatial is None:
        raise tables.NotMeasuredError("the reference's statistics have no mu_s and sigma_s")
    return frechet_distance(features.spatial(), reference.spatial)


@tables.feature("precision", better="higher", tasks=COMPARED_SETS)
def precision_of_samples(features: FeatureSet, reference: Reference) -> float:
    """Share of the measured images within the reference's manifold (Kynkäänniemi et al. 2019)."""
    return precision(_images_of(reference, features), features.features())


@tables.feature("recall", better="higher", tasks=COMPARED_SETS)
def recall_of_samples(features: FeatureSet, reference: Reference) -> float:
    """Share of the reference within the measured images' manifold (Kynkäänniemi et al. 2019)."""
    return recall(_images_of(reference, features), features.features())


@tables.feature("inception_score", better="higher", needs_reference=False)
def inception_score_of_samples(features: FeatureSet, reference: Reference | None) -> float:
    """Inception score in splits of 5000 (Salimans et al. 2016)."""
    del reference
    return inception_score(features.probabilities())


def _images_of(reference: Reference, features: FeatureSet) -> Float[np.ndarray, "n d"]:
    """Returns the reference's features, which must be of enough images, as must be those that are measured."""
    if reference.features is None:
        raise tables.NotMeasuredError(
            "the reference holds statistics only; give its images (a folder, or an .npz with arr_0)"
        )
    if min(len(features), len(reference.features)) <= NEIGHBOURS:
        raise tables.NotMeasuredError(f"each set needs more than {NEIGHBOURS} images")
    return reference.features
