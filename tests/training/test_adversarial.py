"""The adaptive weight, the onset and the discriminator's update against direct computations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from fqgan_jax.losses.adversarial import hinge_loss, lecam_regularization, r1_penalty
from fqgan_jax.training.adversarial import adaptive_weight, discriminator_step, judge, onset
from fqgan_jax.training.state import Adversary


def test_onset_counts_steps_from_one():
    assert [float(onset(jnp.int32(t), 3, 1)) for t in (1, 2, 3, 4)] == [0, 0, 1, 1]
    np.testing.assert_allclose([onset(jnp.int32(t), 3, 4) for t in range(2, 8)], [0, 0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("largest", [1e4, 0.5])
def test_adaptive_weight_is_a_ratio_of_gradient_norms(largest):
    rng = np.random.default_rng(0)
    features, kernel, target = (rng.standard_normal(shape) for shape in ((2, 8, 5), (5, 3), (2, 8, 3)))
    to_pixels = lambda kernel: features @ kernel
    losses = lambda x: jnp.mean((x - target) ** 2), lambda x: jnp.mean(jnp.sin(x))
    bars = [jax.grad(loss)(to_pixels(kernel)) for loss in losses]
    norms = [np.linalg.norm(jax.grad(lambda k, loss=loss: loss(features @ k))(kernel)) for loss in losses]
    expected = min(norms[0] / (norms[1] + 1e-4), largest)
    np.testing.assert_allclose(adaptive_weight(to_pixels, kernel, *bars, largest), expected, rtol=1e-5)


def test_discriminator_step_follows_the_gradient_of_its_loss():
    rng = np.random.default_rng(1)
    images, fake = (rng.standard_normal((4, 2, 2, 3)).astype(np.float32) for _ in range(2))
    params = {"a": rng.standard_normal((2, 2, 3)).astype(np.float32), "b": np.float32(0.1)}
    discriminate = lambda p, x: jnp.sum(p["a"] * x**2 + p["b"] * x, axis=(1, 2, 3))
    config = ConfigDict({"loss": "hinge", "lecam": 0.3, "lecam_decay": 0.9, "r1": 0.01})
    before, optimizer = jnp.array([0.5, -0.5]), optax.sgd(0.1)

    def loss(p):
        real, reconstructed = discriminate(p, images), discriminate(p, fake)
        regularization = 0.3 * lecam_regularization(real, reconstructed, *before)
        penalty = 0.01 * r1_penalty(lambda x: discriminate(p, x), images)
        return 0.25 * (hinge_loss(real, reconstructed) + regularization + penalty)

    value, gradients = jax.value_and_grad(loss)(params)
    judged = judge(discriminate, params, fake, "hinge")
    adversary = Adversary(params, optimizer.init(params), before)
    after, metrics = discriminator_step(discriminate, adversary, images, judged, jnp.float32(0.25), optimizer, config)
    np.testing.assert_allclose(metrics["discriminator"], value, rtol=1e-5)
    for name in params:
        np.testing.assert_allclose(after.params[name], params[name] - 0.1 * gradients[name], rtol=1e-4, atol=1e-6)
    means = np.array([np.mean(discriminate(params, images)), np.mean(discriminate(params, fake))])
    np.testing.assert_allclose(after.average_logits, 0.9 * before + 0.1 * means, rtol=1e-5)
    expected = jax.grad(lambda x: -jnp.mean(discriminate(params, x)))(fake)
    np.testing.assert_allclose(judged.cotangents, expected, rtol=1e-5)
