"""Mutual information of codes whose dependence is known."""

import jax
import numpy as np
import pytest

from fqgan_jax.evaluation.metrics.codebooks import mutual_information

estimate = jax.jit(mutual_information)
RNG = np.random.default_rng(0)


def test_a_known_dependence():
    """c = a, or the next of six with probability 1/2: ln 6 - ln 2 nats of b's ln 6."""
    a, b = RNG.integers(0, 6, (2, 8, 32, 32))
    c = (a + RNG.integers(0, 2, a.shape)) % 6
    expected = [0, np.log(6) - np.log(2), 0]  # pairs (a, b), (a, c), (b, c)
    np.testing.assert_allclose(estimate(np.stack([a, b, c], -1), np.ones(8)), expected, atol=0.02)


@pytest.mark.parametrize("size", [512, 65536, 2**18])
def test_few_tokens_of_a_large_codebook(size):
    """Independent codes share nothing, equal ones their entropy, which 20 values in use make ln 20."""
    values = RNG.choice(size, 20, replace=False)
    a = RNG.integers(0, size, (4, 32, 32, 2))
    np.testing.assert_allclose(estimate(a, np.ones(4)), 0, atol=0.05)
    b = values[RNG.integers(0, 20, (4, 32, 32, 1))]
    np.testing.assert_allclose(estimate(np.concatenate([b, b], -1), np.ones(4)), np.log(20), rtol=0.02)


def test_masked_images_do_not_count():
    codes = RNG.integers(0, 6, (5, 8, 8, 2))
    mask = np.array([1, 0, 1, 1, 0])
    poisoned = np.where(mask[:, None, None, None] > 0, codes, 5)
    np.testing.assert_array_equal(estimate(codes, mask), estimate(poisoned, mask))
