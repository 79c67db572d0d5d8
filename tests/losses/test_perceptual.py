"""LPIPS against the published implementation's numbers (tests/golden/README.md)."""

import golden_data
import golden_vgg
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.losses.perceptual import perceptual_loss
from fqgan_jax.teachers.vgg import LPIPS, import_lpips


@pytest.fixture(scope="module")
def params():
    return import_lpips(golden_vgg.features(), golden_vgg.heads())


@pytest.fixture(scope="module")
def pair():
    real = golden_data.image((2, 64, 64, 3))
    return np.clip(real + 0.3 * golden_data.image((2, 64, 64, 3), 100), -1, 1), real


def test_lpips_of_the_golden_pair(params, pair):
    fake, real = pair
    distance = perceptual_loss(LPIPS(), params, fake, real)
    assert golden_data.relative_error(distance, golden_data.arrays("losses")["lpips"]) < 1e-4


def test_bfloat16_stays_close_and_returns_float32(params, pair):
    distance = perceptual_loss(LPIPS(jnp.bfloat16), params, *pair)
    assert distance.dtype == jnp.float32
    assert 0 < golden_data.relative_error(distance, golden_data.arrays("losses")["lpips"]) < 0.02


def test_gradient_reaches_the_reconstruction_alone(params, pair):
    small = [images[:, :16, :16] for images in pair]
    loss = jax.jit(lambda fake, real: jnp.sum(perceptual_loss(LPIPS(), params, fake, real)))
    to_fake, to_real = jax.jit(jax.grad(loss, (0, 1)))(*small)
    assert not np.any(to_real)
    # Against a difference quotient along the gradient's own direction.
    direction = np.asarray(to_fake) / np.linalg.norm(to_fake)
    slope = (loss(small[0] + 0.01 * direction, small[1]) - loss(small[0] - 0.01 * direction, small[1])) / 0.02
    np.testing.assert_allclose(slope, np.linalg.norm(to_fake), rtol=0.02)


def test_positions_without_any_active_feature_have_a_finite_gradient(params, pair):
    dead = jax.tree.map(lambda leaf: leaf if leaf.ndim > 1 else leaf - 100, params)
    fake, real = (images[:, :16, :16] for images in pair)
    gradient = jax.grad(lambda fake: jnp.sum(perceptual_loss(LPIPS(), dead, fake, real)))(fake)
    np.testing.assert_array_equal(gradient, 0)
