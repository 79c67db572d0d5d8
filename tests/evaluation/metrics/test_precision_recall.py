"""Precision and recall against golden numbers and brute force."""

import numpy as np
import pytest
from support import golden_data

from fqgan_jax.evaluation.metrics import precision_recall as module
from fqgan_jax.evaluation.metrics.precision_recall import precision, recall


def test_golden_numbers_in_one_chunk_and_in_ragged_ones(monkeypatch):
    golden = golden_data.arrays("metrics")
    for chunk in (1024, 70):
        monkeypatch.setattr(module, "CHUNK", chunk)
        for metric, expected in ((precision, golden["precision"]), (recall, golden["recall"])):
            np.testing.assert_allclose(metric(golden["reference"], golden["samples"]), expected, rtol=1e-4)


def brute_force(points, others, k):
    """Share of points within the manifold of the others, one distance at a time."""

    def distance(a, b):
        return np.sqrt(np.sum((a.astype(np.float64) - b) ** 2))

    radii = [sorted(distance(a, b) for b in others)[k] for a in others]
    return np.mean([any(distance(p, o) <= r for o, r in zip(others, radii, strict=True)) for p in points])


def test_against_brute_force_far_from_the_origin():
    rng = np.random.default_rng(0)
    reference = rng.normal(100, 1, (40, 5)).astype(np.float32)
    samples = rng.normal(100.8, 0.5, (30, 5)).astype(np.float32)
    found = precision(reference, samples, neighbours=2), recall(reference, samples, neighbours=2)
    np.testing.assert_allclose(found, (brute_force(samples, reference, 2), brute_force(reference, samples, 2)))
    assert found[1] < found[0] < 1


@pytest.mark.parametrize("metric", [precision, recall])
def test_too_few_points(metric):
    with pytest.raises(ValueError, match="more than 3 images"):
        metric(np.zeros((3, 2), np.float32), np.zeros((9, 2), np.float32))
