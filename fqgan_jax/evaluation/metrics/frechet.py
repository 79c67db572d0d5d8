"""Fréchet distance of two sets of features (Heusel et al. 2017), in float64; covariances may be singular."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg.lapack import dpstrf

from fqgan_jax.errors import UserError


class Gaussian(NamedTuple):
    """Mean and unbiased covariance of features, float64."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]


class RunningMoments:
    """Sums over a stream of features, in float64; how the stream is split changes them by rounding only."""

    def __init__(self):
        self.count = 0
        self._sum: Float[np.ndarray, " d"] = np.zeros(())
        self._outer: Float[np.ndarray, "d d"] = np.zeros(())

    def add(self, features: Float[np.ndarray, "n d"]) -> None:
        """Adds n more examples."""
        features = np.asarray(features, np.float64)
        self.count += len(features)
        self._sum = self._sum + features.sum(0)
        self._outer = self._outer + features.T @ features

    def gaussian(self) -> Gaussian:
        """Returns mean and covariance so far.

        Raises:
          UserError: fewer than two examples.
        """
        if self.count < 2:
            raise UserError(f"A covariance needs at least two images; there are {self.count}.")
        mean = self._sum / self.count
        return Gaussian(mean, (self._outer - self.count * np.outer(mean, mean)) / (self.count - 1))


def gaussian(features: Float[np.ndarray, "n d"]) -> Gaussian:
    """Returns mean and covariance of features.

    Raises:
      UserError: fewer than two examples.
    """
    moments = RunningMoments()
    moments.add(features)
    return moments.gaussian()


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Returns |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½), never below 0 (Heusel et al. 2017, equation 6).

    With Fi Fiᵀ = Ci, the last trace is the sum of the singular values of F1ᵀ F2. That sum exists for every covariance
    and, unlike the root of a product, loses no digits if eigenvalues vanish (fewer examples than features).

    Raises:
      UserError: features of different lengths.
    """
    if first.mean.shape != second.mean.shape:
        raise UserError(
            f"Features of length {len(first.mean)} cannot be compared with those of length {len(second.mean)}: "
            "the statistics come from another network."
        )
    overlap = np.linalg.svd(_factor(first.covariance).T @ _factor(second.covariance), compute_uv=False).sum()
    difference = first.mean - second.mean
    distance = difference @ difference + np.trace(first.covariance) + np.trace(second.covariance) - 2 * overlap
    return max(float(distance), 0.0)


def _factor(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d r"]:
    """Returns F with F Fᵀ the covariance, r its numerical rank: pivoted Cholesky (LAPACK's pstrf)."""
    lower, order, rank, _ = dpstrf(covariance, lower=True)
    factor = np.empty((len(covariance), rank))
    factor[order - 1] = np.tril(lower)[:, :rank]
    return factor
