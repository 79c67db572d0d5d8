"""The ramp, the adaptive weight and the discriminator's update against direct computations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fqgan_jax.losses.adversarial import hinge_loss, lecam_regularization, r1_penalty
from fqgan_jax.training.adversarial import (
    AdversarialTraining,
    LastLayer,
    adaptive_weight,
    adversarial_step,
    ramp_weight,
)
from fqgan_jax.training.state import Adversary


@pytest.mark.parametrize(
    ("ramp_steps", "steps", "expected"),
    [(1, (1, 2, 3, 4), (0, 0, 1, 1)), (4, range(2, 8), (0, 0.25, 0.5, 0.75, 1, 1))],
)
def test_the_ramp_counts_steps_from_one(ramp_steps, steps, expected):
    found = [ramp_weight(jnp.int32(step), start_step=3, ramp_steps=ramp_steps) for step in steps]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("largest", [1e4, 0.5])
def test_adaptive_weight_is_a_ratio_of_gradient_norms(largest):
    rng = np.random.default_rng(0)
    features, kernel, target = (rng.standard_normal(shape) for shape in ((2, 8, 5), (5, 3), (2, 8, 3)))
    losses = lambda x: jnp.mean((x - target) ** 2), lambda x: jnp.mean(jnp.sin(x))
    cotangents = [jax.grad(loss)(features @ kernel) for loss in losses]
    norms = [np.linalg.norm(jax.grad(lambda k, loss=loss: loss(features @ k))(kernel)) for loss in losses]
    expected = min(norms[0] / (norms[1] + 1e-4), largest)
    last_layer = LastLayer(to_pixels=lambda kernel: features @ kernel, kernel=kernel)
    np.testing.assert_allclose(adaptive_weight(last_layer, *cotangents, largest=largest), expected, rtol=1e-5)


class Quadratic(nn.Module):
    """Logits a . x^2 + b . x."""

    @nn.compact
    def __call__(self, x):
        a = self.param("a", nn.initializers.normal(1.0), x.shape[1:])
        b = self.param("b", nn.initializers.constant(0.1), ())
        return jnp.sum(a * x**2 + b * x, axis=(1, 2, 3))


def test_one_step_follows_the_gradients_of_both_losses():
    rng = np.random.default_rng(1)
    images, fake = (rng.standard_normal((4, 2, 2, 3)).astype(np.float32) for _ in range(2))
    module, before = Quadratic(), jnp.array([0.5, -0.5])
    params = module.init(jax.random.key(0), images)["params"]
    training = AdversarialTraining(
        module=module, tx=optax.sgd(0.1), weight=0.25, start_step=3, ramp_steps=2, lecam=0.3, lecam_decay=0.9, r1=0.01
    )
    weight = 0.25 * 0.5  # step 3, the first of a ramp of two

    def discriminate(p, x):
        return module.apply({"params": p}, x)

    def loss(p):
        real, reconstructed = discriminate(p, images), discriminate(p, fake)
        regularization = 0.3 * lecam_regularization(real, reconstructed, before)
        penalty = 0.01 * r1_penalty(lambda x: discriminate(p, x), images)
        return weight * (hinge_loss(real, reconstructed) + regularization + penalty)

    value, grads = jax.value_and_grad(loss)(params)
    result = adversarial_step(
        Adversary(params=params, opt_state=training.tx.init(params), average_logits=before),
        images,
        fake,
        training=training,
        step=jnp.int32(2),
        other_cotangent=jnp.zeros_like(fake),
        last_layer=LastLayer(to_pixels=lambda kernel: kernel, kernel=fake),
    )
    np.testing.assert_allclose(result.metrics["discriminator"], value, rtol=1e-5)
    after = result.adversary
    for name in params:
        np.testing.assert_allclose(after.params[name], params[name] - 0.1 * grads[name], rtol=1e-4, atol=1e-6)
    means = np.array([np.mean(discriminate(params, images)), np.mean(discriminate(params, fake))])
    np.testing.assert_allclose(after.average_logits, 0.9 * before + 0.1 * means, rtol=1e-5)
    generator_loss, cotangent = jax.value_and_grad(lambda x: -jnp.mean(discriminate(params, x)))(fake)
    np.testing.assert_allclose(result.metrics["adversarial"], generator_loss, rtol=1e-5)
    np.testing.assert_allclose(result.loss, weight * generator_loss, rtol=1e-5)
    np.testing.assert_allclose(result.cotangent, weight * cotangent, rtol=1e-5)
