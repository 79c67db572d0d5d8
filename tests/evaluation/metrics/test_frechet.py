"""Fréchet distance against golden numbers, SciPy's matrix root and closed forms."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from support import golden_data

from fqgan_jax.errors import UserError
from fqgan_jax.evaluation.metrics.frechet import Gaussian, RunningMoments, frechet_distance, gaussian


def test_golden_distance():
    golden = golden_data.arrays("metrics")
    ours = frechet_distance(gaussian(golden["reference"]), gaussian(golden["samples"]))
    np.testing.assert_allclose(ours, golden["frechet_distance"], rtol=1e-4)


def test_against_the_root_of_the_product():
    rng = np.random.default_rng(0)
    first, second = gaussian(rng.normal(size=(60, 12))), gaussian(rng.normal(1, 2, (70, 12)) * np.arange(1, 13))
    root = sqrtm(first.covariance @ second.covariance).real
    difference = first.mean - second.mean
    expected = difference @ difference + np.trace(first.covariance + second.covariance - 2 * root)
    np.testing.assert_allclose(frechet_distance(first, second), expected, rtol=1e-9)


def test_fewer_examples_than_features():
    rng = np.random.default_rng(1)
    few = rng.normal(size=(9, 300)) * np.geomspace(1, 1e-4, 300) * 30
    same = gaussian(few)
    assert frechet_distance(same, same) < 1e-9
    # Moved and scaled: tr(C + s²C - 2 s C) = (s - 1)² tr C exactly, singular or not.
    moved = gaussian(3 * few + 0.5)
    offset = moved.mean - same.mean
    expected = offset @ offset + 4 * np.trace(same.covariance)
    np.testing.assert_allclose(frechet_distance(same, moved), expected, rtol=1e-6)


def test_parts_of_any_size_give_the_covariance():
    features = np.random.default_rng(2).normal(5, 1, (50, 7)).astype(np.float32)
    moments = RunningMoments()
    for part in np.split(features, [1, 20, 33]):
        moments.add(part)
    mean, covariance = moments.gaussian()
    np.testing.assert_allclose(mean, features.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-9)


def test_too_few_examples_and_other_lengths_are_said():
    with pytest.raises(UserError, match="at least two images; there are 1"):
        gaussian(np.zeros((1, 3)))
    with pytest.raises(UserError, match="length 2 cannot be compared with those of length 3"):
        frechet_distance(Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.zeros(3), np.eye(3)))
