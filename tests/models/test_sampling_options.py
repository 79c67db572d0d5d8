"""Choosing codes: filters against NumPy, independence of the batch, options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import small_far

from fqgan_jax.api import Generator
from fqgan_jax.errors import UserError
from fqgan_jax.models.sampling_options import draw_codes, keep_min_p, keep_top_k, keep_top_p, sampling_options

LOGITS = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32) * 2


@pytest.mark.parametrize("k", [1, 3, 9, 0, 50])
def test_top_k_keeps_the_largest(k):
    kept = np.isfinite(keep_top_k(LOGITS, jnp.int32(k)))
    ranks = np.argsort(np.argsort(-LOGITS, -1), -1)
    np.testing.assert_array_equal(kept, ranks < (k or 9))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8, 1.0])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p):
    kept = np.isfinite(keep_top_p(LOGITS, jnp.float32(p)))
    for row, keep in zip(LOGITS, kept, strict=True):
        order = np.argsort(-row)
        probability = (np.exp(row) / np.exp(row).sum())[order]
        count = 9 if p == 1 else max(1, int(np.searchsorted(np.cumsum(probability), p)) + 1)
        np.testing.assert_array_equal(np.flatnonzero(keep), np.sort(order[:count]))


def test_drawn_codes_follow_the_distribution_and_zero_temperature_is_greedy():
    logits = jnp.broadcast_to(jnp.log(jnp.array([0.1, 0.6, 0.3])), (20_000, 3))
    keys = jax.random.split(jax.random.key(0), len(logits))
    options = sampling_options(2, temperature=(1.0, 0.0))
    drawn = np.bincount(draw_codes(keys, logits, options=options, k=0), minlength=3) / len(logits)
    np.testing.assert_allclose(drawn, [0.1, 0.6, 0.3], atol=0.02)
    assert np.all(np.asarray(draw_codes(keys, logits, options=options, k=1)) == 1)


def test_samples_do_not_depend_on_the_batch_size():
    module, params, _, _ = small_far.random_far(num_codebooks=2)
    generator, key = Generator(module, params), jax.random.key(7)
    labels = np.array([0, 1, 2, 3, 4, 1])
    together = generator.sample(labels, key=key, top_k=(5, 0), top_p=0.9)
    parts = [generator.sample(labels[i : i + 2], key=key, first=i, top_k=(5, 0), top_p=0.9) for i in (0, 2, 4)]
    np.testing.assert_array_equal(together, np.concatenate(parts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": (1, 2, 3)}, "3 values for 2 sub-codebooks"),
        ({"temperature": -1}, "at least 0"),
        ({"guidance": float("inf")}, "at least 0"),
        ({"min_p": 2}, "between 0 and 1"),
        ({"guidance_schedule": "interval:0.2"}, "needs 2 number.*interval:START-STOP"),
        ({"guidance_schedule": "power_cosin:1"}, "power_cosine"),
        ({"top_p": 1.5}, "between 0 and 1"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        sampling_options(2, **options)


def test_unknown_label_is_explained():
    module, params, _, _ = small_far.random_far(num_codebooks=2)
    with pytest.raises(UserError, match="between 0 and 4"):
        Generator(module, params).sample(np.array([5]), key=jax.random.key(0))


def test_min_p_keeps_codes_probable_enough():
    logits = jax.random.normal(jax.random.key(0), (4, 50)) * 2
    kept = np.isfinite(keep_min_p(logits, jnp.float32(0.2)))
    probability = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_array_equal(kept, probability >= 0.2 * probability.max(axis=-1, keepdims=True))
    np.testing.assert_array_equal(keep_min_p(logits, jnp.float32(0)), logits)


def test_guidance_follows_its_schedules():
    T = 256
    options = sampling_options(
        3, guidance=(16, 3, 2), guidance_schedule=("power_cosine:2.75", "interval:0.25-0.5", "constant")
    )
    scales = np.array([[options.scale(k, t, T) for k in range(3)] for t in range(0, T, 16)])
    x = np.arange(0, T, 16) / T
    np.testing.assert_allclose(scales[:, 0], 1 + 15 * (1 - np.cos(np.pi * x**2.75)) / 2, rtol=1e-5)
    np.testing.assert_allclose(scales[:, 1], np.where((x >= 0.25) & (x < 0.5), 3, 1))
    np.testing.assert_allclose(scales[:, 2], 2)
    assert sampling_options(2, guidance_schedule="constant").schedules is None
