"""Merged metrics equal those of all data at once."""

import jax.numpy as jnp
import numpy as np

from fqgan_jax.evaluation.metrics.codebooks import CodeUsage
from fqgan_jax.training import metrics

RNG = np.random.default_rng(0)


def test_code_usage_of_merged_batches():
    codes = RNG.integers(0, 6, (4, 3, 3, 2))
    mask = np.array([1, 1, 1, 0], np.float32).reshape(4, 1, 1, 1)
    first = CodeUsage.from_codes(jnp.array(codes[:2]), 8, mask[:2])
    merged = metrics.merge({"codes": first}, {"codes": CodeUsage.from_codes(jnp.array(codes[2:]), 8, mask[2:])})
    values = metrics.compute(merged)
    for k in range(2):
        counts = np.bincount(codes[:3, ..., k].reshape(-1), minlength=8)
        p = counts[counts > 0] / counts.sum()
        np.testing.assert_allclose(values[f"usage/{k}"], np.mean(counts > 0))
        np.testing.assert_allclose(values[f"perplexity/{k}"], np.exp(-np.sum(p * np.log(p))), rtol=1e-5)


def test_average_counts_masked_values_once():
    first = {"loss": metrics.masked_average(jnp.array([1.0, 2.0, 9.0]), jnp.array([1.0, 1.0, 0.0]))}
    second = {"loss": metrics.masked_average(jnp.array([6.0]), jnp.ones(1))}
    assert metrics.compute(metrics.merge(first, second)) == {"loss": 3.0}


def test_values_per_sub_codebook_keep_their_places():
    per_codebook = metrics.average(jnp.array([1.0, 3.0]))
    assert metrics.compute({"codebook": per_codebook}) == {"codebook/0": 1.0, "codebook/1": 3.0}


def test_values_that_do_not_count_in_a_step_are_left_out():
    steps = [([2.0, 0.0], [1.0, 0.0]), ([4.0, 6.0], [1.0, 1.0])]
    first, second = ({"entropy": metrics.average(jnp.array(v), jnp.array(n))} for v, n in steps)
    assert metrics.compute(metrics.merge(first, second)) == {"entropy/0": 3.0, "entropy/1": 6.0}
