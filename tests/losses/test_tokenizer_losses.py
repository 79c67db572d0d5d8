"""Every loss against a direct NumPy computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.losses.generator_losses import next_code_loss
from fqgan_jax.losses.quantization_losses import codebook_loss, commitment_loss, disentanglement_loss, entropy_loss
from fqgan_jax.losses.tokenizer_losses import feature_loss, info_nce, l2_loss

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def test_l2_loss():
    a, b = normal(2, 4, 4, 3), normal(2, 4, 4, 3)
    np.testing.assert_allclose(l2_loss(reconstruction=a, images=b), np.mean((a - b) ** 2), rtol=1e-6)


@pytest.mark.parametrize("loss", [codebook_loss, commitment_loss])
def test_codebook_and_commitment_losses_share_values_and_differ_in_gradients(loss):
    entries, latents = normal(2, 3, 3, 2, 4), normal(2, 3, 3, 2, 4)
    expected = [np.mean((entries[..., k, :] - latents[..., k, :]) ** 2) for k in range(2)]
    np.testing.assert_allclose(loss(entries=entries, latents=latents), expected, rtol=1e-5)
    to_entries, to_latents = jax.grad(lambda e, z: jnp.sum(loss(entries=e, latents=z)), (0, 1))(entries, latents)
    slope = 2 * (entries - latents) / (2 * 3 * 3 * 4)
    moved, still, sign = (to_entries, to_latents, 1) if loss is codebook_loss else (to_latents, to_entries, -1)
    np.testing.assert_allclose(moved, sign * slope, rtol=1e-5)
    assert not np.any(still)


def test_entropy_loss():
    p = np.exp(normal(10, 2, 5))
    p /= p.sum(-1, keepdims=True)
    tokens, mean = -np.mean(np.sum(p * np.log(p), -1), 0), p.mean(0)
    expected = tokens + np.sum(mean * np.log(mean + 1e-5), -1)
    np.testing.assert_allclose(entropy_loss(token_entropy=tokens, mean_probability=mean), expected, rtol=1e-5)


@pytest.mark.parametrize("K", [1, 2, 3, 8])
def test_disentanglement_loss(K):
    z = normal(2, 3, 3, K, 4)
    total, pairs = 0.0, 0
    for i in range(K):
        for j in range(i):
            a, b = z[..., i, :], z[..., j, :]
            cosine = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            total, pairs = total + np.mean(cosine**2), pairs + 1
    np.testing.assert_allclose(disentanglement_loss(quantized=z), total / max(pairs, 1), rtol=1e-5)


def test_info_nce():
    predictions, targets = normal(6, 5), normal(6, 5)
    np.testing.assert_allclose(info_nce(predictions, targets), direct_info_nce(predictions, targets), rtol=1e-5)


def test_next_code_loss():
    logits, codes = normal(2, 4, 3, 7), RNG.integers(0, 7, (2, 4, 3))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(p, codes[..., None], -1)[..., 0]
    np.testing.assert_allclose(next_code_loss(logits=logits, codes=codes), -np.log(chosen).mean((0, 1)), rtol=1e-5)


def test_disentanglement_loss_has_a_finite_gradient_where_a_latent_is_zero():
    z = normal(1, 2, 2, 2, 4)
    z[0, 0, 0] = 0
    gradient = jax.grad(lambda z: disentanglement_loss(quantized=z))(z)
    assert np.all(np.isfinite(gradient))
    assert not np.any(gradient[0, 0, 0])


def direct_info_nce(predictions, targets):
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (predictions, targets))
    s = np.exp(a @ b.T)
    return -np.mean(np.log(np.diag(s) / s.sum(1)))


@pytest.mark.parametrize("group", [0, 2, 3, 6])
def test_examples_contrast_within_their_group(group):
    """The whole batch, or a device's share as published."""
    first, second = normal(2, 6, 5), normal(2, 6, 3)
    predictions, targets = (None, first[0], second[0]), (None, first[1], second[1])
    found = feature_loss(predictions=predictions, targets=targets, feature_group=group)
    size = group or 6
    expected = [
        np.mean([direct_info_nce(x[0, i : i + size], x[1, i : i + size]) for i in range(0, 6, size)])
        for x in (first, second)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_models_without_a_teacher_or_a_soft_assignment_lack_those_losses():
    assert feature_loss(predictions=(None, None), targets=(None, None), feature_group=0) is None
    assert entropy_loss(token_entropy=None, mean_probability=None) is None
