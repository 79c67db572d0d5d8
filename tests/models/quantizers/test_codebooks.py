"""The quantizer against brute force, autodiff and invariants."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.models.quantizers import FactorizedQuantizer, QuantizerSizes
from fqgan_jax.models.quantizers.distances import l2_normalize, nearest_codes, soft_assignment


def draw(num_codebooks: int):
    keys = jax.random.split(jax.random.key(0))
    latents = jax.random.normal(keys[0], (2, 12, num_codebooks, 4))
    return l2_normalize(latents), l2_normalize(jax.random.normal(keys[1], (num_codebooks, 24, 4)))


@pytest.mark.parametrize("K", [1, 2, 3, 64])
@pytest.mark.parametrize("chunk_tokens", [1, 8, 10**6])
def test_nearest_codes_equal_brute_force(K, chunk_tokens):
    latents, codebooks = draw(K)
    difference = np.asarray(latents, np.float64)[..., None, :] - np.asarray(codebooks, np.float64)
    expected = np.argmin(np.sum(difference**2, -1), -1)
    np.testing.assert_array_equal(nearest_codes(latents, codebooks, chunk_tokens=chunk_tokens), expected)


def direct_assignment(latents, codebooks):
    distances = jnp.sum((latents[..., None, :] - codebooks) ** 2, -1)
    p = jax.nn.softmax(-distances / 0.1)
    return jnp.argmin(distances, -1), -jnp.mean(jnp.sum(p * jnp.log(p + 1e-30), -1), (0, 1)), jnp.mean(p, (0, 1))


@pytest.mark.parametrize("chunk_tokens", [2, 8, 10**6])
def test_soft_assignment_values_and_gradients_equal_the_direct_formula(chunk_tokens):
    latents, codebooks = draw(3)
    weights = jax.random.normal(jax.random.key(1), codebooks.shape[:2])

    def values_and_grads(assignment):
        def scalar(latents, codebooks):
            values = assignment(latents, codebooks)
            _, entropy, probability = values
            return jnp.sum(entropy * jnp.arange(1, 4)) + jnp.sum(probability**2 * weights), values

        (_, values), grads = jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))(latents, codebooks)
        return values, grads

    values, grads = values_and_grads(partial(soft_assignment, temperature=0.1, chunk_tokens=chunk_tokens))
    expected, expected_grads = values_and_grads(direct_assignment)
    for value, direct in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, direct, rtol=1e-5, atol=1e-6)
    for grad, direct in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, direct, rtol=1e-4, atol=1e-5)


def apply(latents, *, normalized=True, codebooks=None):
    K, d = latents.shape[-2:]
    sizes = QuantizerSizes(num_codebooks=K, codebook_size=16, code_dim=d, normalized=normalized)
    module = FactorizedQuantizer(sizes=sizes)
    params = module.init(jax.random.key(0), latents)
    if codebooks is not None:
        params = {"params": {"codebooks": codebooks}}
    return module, params, module.apply(params, latents)


def test_new_entries_have_unit_length():
    _, params, _ = apply(jnp.ones((1, 2, 2, 3, 8)))
    np.testing.assert_allclose(np.linalg.norm(params["params"]["codebooks"], axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("normalized", [True, False])
def test_straight_through_gradient_skips_the_quantizer(normalized):
    latents = jax.random.normal(jax.random.key(2), (2, 3, 3, 2, 4))
    weights = jax.random.normal(jax.random.key(3), latents.shape)
    module, params, _ = apply(latents, normalized=normalized)
    through = jax.grad(lambda z: jnp.sum(module.apply(params, z).quantized * weights))(latents)
    without = jax.grad(lambda z: jnp.sum((l2_normalize(z) if normalized else z) * weights))(latents)
    np.testing.assert_allclose(through, without, rtol=1e-5, atol=1e-6)


def test_quantized_values_are_entries_of_the_codes():
    latents = jax.random.normal(jax.random.key(2), (2, 3, 3, 2, 4))
    module, params, output = apply(latents)
    codebooks = np.asarray(params["params"]["codebooks"])
    codebooks = codebooks / np.linalg.norm(codebooks, axis=-1, keepdims=True)
    expected = np.stack([codebooks[k][np.asarray(output.codes)[..., k]] for k in range(2)], axis=-2)
    np.testing.assert_allclose(output.quantized, expected, atol=1e-6)
    np.testing.assert_array_equal(module.apply(params, latents, method="encode"), output.codes)
    np.testing.assert_allclose(module.apply(params, output.codes, method="decode"), expected, atol=1e-6)


def test_permuting_sub_codebooks_permutes_codes():
    latents = jax.random.normal(jax.random.key(2), (2, 3, 3, 5, 4))
    order = np.array([3, 1, 4, 0, 2])
    _, params, output = apply(latents)
    _, _, permuted = apply(latents[..., order, :], codebooks=params["params"]["codebooks"][order])
    np.testing.assert_array_equal(permuted.codes, output.codes[..., order])
    np.testing.assert_allclose(permuted.token_entropy, output.token_entropy[order], rtol=1e-5)


def test_zero_latent_has_a_finite_gradient():
    gradient = jax.grad(lambda x: jnp.sum(l2_normalize(x)))(jnp.zeros(4))
    assert np.all(np.isfinite(gradient))
