"""Products with float32 results: values and gradients against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.models.products import float32_product


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 0.02)])
def test_values_and_gradients(dtype, tolerance):
    x, weights = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 3, 16), (16, 8)]))
    cotangent = jax.random.normal(jax.random.key(2), (2, 3, 8))
    y, pull_back = jax.vjp(float32_product, x.astype(dtype), weights.astype(dtype))
    by_x, by_weights = pull_back(cotangent)
    assert (y.dtype, by_x.dtype, by_weights.dtype) == (jnp.float32, dtype, dtype)
    scale = {"atol": 10 * tolerance, "rtol": tolerance}
    np.testing.assert_allclose(y, np.asarray(x) @ np.asarray(weights), **scale)
    np.testing.assert_allclose(by_x.astype(jnp.float32), np.asarray(cotangent) @ np.asarray(weights).T, **scale)
    expected = np.einsum("bti,bto->io", x, cotangent)
    np.testing.assert_allclose(by_weights.astype(jnp.float32), expected, **scale)


def test_half_precision_is_accumulated_in_float32():
    x, weights = jnp.full((1, 4096), 1.0, jnp.bfloat16), jnp.full((4096, 1), 1.0, jnp.bfloat16).at[0].set(1.0078125)
    assert float(float32_product(x, weights)[0, 0]) == 4096.0078125
