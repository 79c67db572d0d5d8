"""Held-out losses: exact for any batch size and number of devices, and against SciPy."""

import numpy as np
import pytest
from scipy.special import log_softmax
from support import small_far
from support.layouts import assert_same, each_layout

from fqgan_jax.evaluation.held_out import measure_held_out
from fqgan_jax.pictures.held_out import held_out_picture

COUNT = 13


@pytest.fixture(scope="module")
def model():
    module, params, _, _ = small_far.random_far(num_codebooks=2)
    rng = np.random.default_rng(0)
    codes, labels = rng.integers(0, 11, (COUNT, 3, 4, 2)), rng.integers(0, 4, COUNT)  # no image of class 4
    return module, params, codes, labels


def batches(codes, labels, size):
    for first in range(0, COUNT, size):
        index = np.arange(first, first + size)
        yield {
            "codes": codes[index % COUNT].astype(np.int32),
            "label": labels[index % COUNT].astype(np.int32),
            "mask": (index < COUNT).astype(np.float32),
        }


@pytest.mark.slow
def test_losses_on_any_devices_and_batches(model, monkeypatch):
    module, params, codes, labels = model
    flat = codes.reshape(COUNT, 12, 2)
    logits = np.asarray(module.apply({"params": params}, flat, labels), np.float64)
    losses = -np.take_along_axis(log_softmax(logits, axis=-1), flat[..., None], axis=-1)[..., 0]

    found = []
    for batch_size in each_layout(monkeypatch):
        measured = measure_held_out(
            module, params, lambda size: batches(codes, labels, size), count=COUNT, batch_size=batch_size
        )
        np.testing.assert_allclose(measured.by_position, losses.mean(0).reshape(3, 4, 2), rtol=1e-5)
        by_class = [losses[labels == c].mean((0, 1)) for c in range(4)]
        np.testing.assert_allclose(measured.by_class[:4], by_class, rtol=1e-5)
        assert np.isnan(measured.by_class[4]).all()
        np.testing.assert_array_equal(measured.images, np.bincount(labels, minlength=5))
        results = measured.results()
        assert results["next_code"] == pytest.approx(losses.mean(), rel=1e-5)
        assert results["next_code_perplexity/1"] == pytest.approx(np.exp(losses[..., 1].mean()), rel=1e-5)
        found.append(results)
    assert_same(found)
    picture = held_out_picture(measured, ("a", "b", "c", "d", "e"))
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.std() > 10
