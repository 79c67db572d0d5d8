"""Mutual information against scikit-learn's plug-in estimate and known cases."""

import itertools

import jax
import numpy as np

from fqgan_jax.evaluation.codebooks import mutual_information


def plug_in(a, b):
    """Mutual information of the joint frequencies, counted one by one."""
    joint = {}
    for pair in zip(a.tolist(), b.tolist(), strict=True):
        joint[pair] = joint.get(pair, 0) + 1
    share = lambda values, value: np.mean(values == value)
    return sum(c / len(a) * np.log(c / len(a) / share(a, i) / share(b, j)) for (i, j), c in joint.items())


def test_against_counting_with_the_correction():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 6, (4, 5, 5, 3))
    codes[..., 2] = (codes[..., 0] + rng.integers(0, 2, (4, 5, 5))) % 6
    mask = np.array([1, 1, 0, 1], np.float32)
    counted = codes[mask > 0].reshape(-1, 3)
    expected = []
    for i, j in itertools.combinations(range(3), 2):
        a, b = counted[:, i], counted[:, j]
        seen = len(set(a.tolist())) + len(set(b.tolist())) - len(set(zip(a.tolist(), b.tolist(), strict=True))) - 1
        expected.append(plug_in(a, b) + seen / (2 * len(a)))
    ours = jax.jit(mutual_information, static_argnums=2)(codes, mask, 6)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_independent_and_equal_codes_of_a_large_codebook():
    rng = np.random.default_rng(1)
    values = rng.choice(65536, 20, replace=False)
    a, b = values[rng.integers(0, 20, (2, 8, 32, 32))]
    codes = np.stack([a, b, a], axis=-1)
    independent, equal, _ = np.asarray(mutual_information(codes, np.ones(8, np.float32), 65536))
    assert abs(independent) < 0.01
    np.testing.assert_allclose(equal, np.log(20), rtol=0.01)
