"""Inception score against golden numbers and closed forms."""

import numpy as np
from support import golden_data

from fqgan_jax.evaluation.metrics.inception_score import inception_score


def test_golden_scores():
    golden = golden_data.arrays("metrics")
    probabilities = golden["class_probabilities"]
    np.testing.assert_allclose(inception_score(probabilities), golden["inception_score"], rtol=1e-4)
    np.testing.assert_allclose(inception_score(probabilities, 300), golden["inception_score_split300"], rtol=1e-4)


def test_certain_and_uncertain_classes():
    certain = np.tile(np.eye(4), (5, 1))
    np.testing.assert_allclose(inception_score(certain), 4)
    np.testing.assert_allclose(inception_score(np.full((20, 4), 0.25)), 1)
    # Splits of one class each: nothing varies within them.
    np.testing.assert_allclose(inception_score(np.repeat(np.eye(4), 5, axis=0), 5), 1)
