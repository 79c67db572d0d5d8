"""Weights and names of the loss terms."""

import numpy as np
import pytest

from fqgan_jax.training.objective import feature_terms, weighted_sum

RNG = np.random.default_rng(0)


def info_nce(predictions, targets):
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (predictions, targets))
    s = np.exp(a @ b.T)
    return -np.mean(np.log(np.diag(s) / s.sum(1)))


@pytest.mark.parametrize("group", [0, 2, 3, 6])
def test_examples_contrast_within_their_group(group):
    """The whole batch, or a device's share as published."""
    first, second = (RNG.standard_normal((2, 6, width)).astype(np.float32) for width in (5, 3))
    terms = feature_terms((None, first[0], second[0]), (None, first[1], second[1]), group)
    size = group or 6
    expected = [
        np.mean([info_nce(x[0, i : i + size], x[1, i : i + size]) for i in range(0, 6, size)]) for x in (first, second)
    ]
    np.testing.assert_allclose(terms["feature"], expected, rtol=1e-5)


def test_no_teacher_no_term():
    assert feature_terms((None, None), (None, None), 0) == {}


def test_values_per_sub_codebook_are_summed():
    terms = {"codebook": np.array([1.0, 2.0]), "disentanglement": np.float32(4)}
    assert weighted_sum(terms, {"codebook": 0.5, "disentanglement": 0.25, "entropy": 9.0}) == 2.5
