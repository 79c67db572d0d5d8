"""Metrics of a set of images by their features.

FID, sFID, precision, recall and the inception score are of Inception, `fd_lite0` of EfficientNet-Lite0.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float
from scipy.special import softmax

from fqgan_jax.evaluation.metrics import tables
from fqgan_jax.evaluation.metrics.frechet import Gaussian, RunningMoments, frechet_distance
from fqgan_jax.evaluation.metrics.inception_score import inception_score
from fqgan_jax.evaluation.metrics.precision_recall import NEIGHBOURS, precision, recall

COMPARED_SETS = ("images", "generator")  # tasks that publish sFID, precision and recall


# Kinds of features of a batch by name: Inception's "pool" (for FID, precision and recall), "spatial" (for sFID) and
# "logits" (for the inception score); "lite0", the last features of EfficientNet-Lite0, and "lite0_logits".
ImageFeatures = Mapping[str, Float[Array, "B d"]]


class FeatureSet:
    """Features of a set of images, collected in their order; of the kinds that its networks compute."""

    def __init__(self):
        self._count = 0
        self._moments: dict[str, RunningMoments] = {}
        self._features: list[Float[np.ndarray, "n d"]] = []
        self._probabilities: dict[str, list[Float[np.ndarray, "n c"]]] = {}

    def add(self, rows: Mapping[str, Float[np.ndarray, "B d"]]) -> None:
        """Adds the features of more images, as NumPy arrays."""
        self._count += len(next(iter(rows.values())))
        for kind, values in rows.items():
            if kind.endswith("logits"):
                probabilities = softmax(values.astype(np.float64), axis=1).astype(np.float32)
                self._probabilities.setdefault(kind, []).append(probabilities)
            else:
                self._moments.setdefault(kind, RunningMoments()).add(values)
        if "pool" in rows:
            self._features.append(rows["pool"])

    def __len__(self) -> int:
        return self._count

    def gaussians(self) -> dict[str, Gaussian]:
        """Returns mean and covariance of each kind of features but the logits.

        Raises:
          UserError: fewer than two images.
        """
        return {kind: moments.gaussian() for kind, moments in self._moments.items()}

    def features(self) -> Float[np.ndarray, "n d"] | None:
        """Returns the pool features of each image; None without Inception."""
        return np.concatenate(self._features) if self._features else None

    def probabilities(self, kind: str = "logits") -> Float[np.ndarray, "n c"]:
        """Returns the class probabilities of each image by one kind of logits."""
        return np.concatenate(self._probabilities[kind])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference that a set of images is compared with.

    Attributes:
      gaussians: mean and covariance of each kind of its features; stored statistics may lack some.
      features: its pool features, None if there are statistics only.
      protocol: describes its origin.
    """

    gaussians: Mapping[str, Gaussian]
    features: Float[np.ndarray, "n d"] | None
    protocol: dict


@tables.feature("fid", better="lower", result_names={"tokenizer": "rfid", "generator": "gfid"})
def fid(features: FeatureSet, reference: Reference) -> float:
    """Fréchet distance of the pool features (Heusel et al. 2017)."""
    return _distance(features, reference, "pool", "mu and sigma")


@tables.feature("sfid", better="lower", tasks=COMPARED_SETS)
def sfid(features: FeatureSet, reference: Reference) -> float:
    """Fréchet distance of the spatial features (Nash et al. 2021)."""
    return _distance(features, reference, "spatial", "mu_s and sigma_s")


@tables.feature("fd_lite0", better="lower", network="efficientnet-lite0")
def fd_lite0(features: FeatureSet, reference: Reference) -> float:
    """Fréchet distance of EfficientNet-Lite0's last features; its numbers are not comparable with FID."""
    return _distance(features, reference, "lite0", "mu_lite0 and sigma_lite0")


@tables.feature("precision", better="higher", tasks=COMPARED_SETS)
def precision_of_samples(features: FeatureSet, reference: Reference) -> float:
    """Share of the measured images within the reference's manifold (Kynkäänniemi et al. 2019)."""
    return precision(*_compared(reference, features))


@tables.feature("recall", better="higher", tasks=COMPARED_SETS)
def recall_of_samples(features: FeatureSet, reference: Reference) -> float:
    """Share of the reference within the measured images' manifold (Kynkäänniemi et al. 2019)."""
    return recall(*_compared(reference, features))


@tables.feature("inception_score", better="higher", needs_reference=False)
def inception_score_of_samples(features: FeatureSet, reference: Reference | None) -> float:
    """Inception score in splits of 5000 (Salimans et al. 2016)."""
    del reference
    return inception_score(features.probabilities())


@tables.feature(
    "lite0_score", better="higher", network="efficientnet-lite0", needs_reference=False, tasks=("generator",)
)
def lite0_score(features: FeatureSet, reference: Reference | None) -> float:
    """The inception score's formula with the probabilities of EfficientNet-Lite0; the two are not comparable."""
    del reference
    return inception_score(features.probabilities("lite0_logits"))


def _distance(features: FeatureSet, reference: Reference, kind: str, stored: str) -> float:
    """Returns the Fréchet distance of one kind of features, which stored statistics may lack."""
    if kind not in reference.gaussians:
        raise tables.NotMeasuredError(f"the reference's statistics have no {stored}")
    return frechet_distance(features.gaussians()[kind], reference.gaussians[kind])


def _compared(reference: Reference, features: FeatureSet) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Returns the reference's features and those that are measured; each must be of enough images."""
    if reference.features is None:
        raise tables.NotMeasuredError(
            "the reference holds statistics only; give its images (a folder, or an .npz with arr_0)"
        )
    if min(len(features), len(reference.features)) <= NEIGHBOURS:
        raise tables.NotMeasuredError(f"each set needs more than {NEIGHBOURS} images")
    measured = features.features()
    assert measured is not None  # without Inception there are no such metrics
    return reference.features, measured
