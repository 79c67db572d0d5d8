"""Adversarial losses against NumPy and the published model's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from support import golden_data

from fqgan_jax.losses.adversarial import (
    hinge_loss,
    lecam_regularization,
    linear_generator_loss,
    non_saturating_generator_loss,
    non_saturating_loss,
    r1_penalty,
    vanilla_loss,
)

RNG = np.random.default_rng(0)
REAL, FAKE = (RNG.standard_normal((2, 3, 3, 1)).astype(np.float32) for _ in range(2))


def cross_entropy(logits, target):
    p = 1 / (1 + np.exp(-logits))
    return -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))


def test_published_losses():
    golden = golden_data.arrays("losses")
    real, fake = golden["patchgan_logits_real"], golden["patchgan_logits_fake"]
    np.testing.assert_allclose(hinge_loss(real, fake), golden["hinge_d"], rtol=1e-4)
    np.testing.assert_allclose(vanilla_loss(real, fake), golden["vanilla_d"], rtol=1e-4)
    np.testing.assert_allclose(linear_generator_loss(fake), golden["hinge_g"], rtol=1e-4)


def test_non_saturating_losses_are_cross_entropies():
    expected = cross_entropy(REAL, 1) + cross_entropy(FAKE, 0)
    np.testing.assert_allclose(non_saturating_loss(REAL, FAKE), expected, rtol=1e-5)
    np.testing.assert_allclose(non_saturating_generator_loss(FAKE), cross_entropy(FAKE, 1), rtol=1e-5)


def test_lecam():
    expected = np.mean(np.maximum(REAL + 0.2, 0) ** 2) + np.mean(np.maximum(0.3 - FAKE, 0) ** 2)
    np.testing.assert_allclose(lecam_regularization(REAL, FAKE, jnp.array([0.3, -0.2])), expected, rtol=1e-5)


def test_r1_of_a_network_whose_gradient_is_known():
    """Logits a . x^2 have the gradient 2 a x."""
    images, a = RNG.standard_normal((2, 4, 4, 3)), RNG.standard_normal((4, 4, 3))

    def discriminate(x):
        return jnp.sum(a * x**2, axis=(1, 2, 3))

    expected = 0.5 * np.mean(np.sum((2 * a * images) ** 2, axis=(1, 2, 3)))
    np.testing.assert_allclose(jax.jit(lambda x: r1_penalty(discriminate, x))(images), expected, rtol=1e-5)
