"""Attention against NumPy; on NVIDIA GPUs it is a call of cuDNN, in programs that are compiled without one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.models.attention import attention, has_cudnn, takes_cudnn

needs_cudnn = pytest.mark.skipif(not has_cudnn(), reason="pip install fqgan-jax[cuda]")


def draw(shape, dtype=jnp.float32):
    return [jax.random.normal(key, shape, dtype) for key in jax.random.split(jax.random.key(0), 3)]


def by_hand(query, key, value, *, causal: bool):
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    logits = np.einsum("bqhc,bkhc->bhqk", query, key) / np.sqrt(query.shape[-1])
    if causal:
        logits = np.where(np.tri(query.shape[1], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.einsum("bhqk,bkhc->bqhc", weights / weights.sum(axis=-1, keepdims=True), value)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.03)])
def test_values(dtype, tolerance, *, causal):
    inputs = draw((2, 5, 3, 8), dtype)
    expected = by_hand(*inputs, causal=causal)
    np.testing.assert_allclose(attention(*inputs, causal=causal).astype(jnp.float32), expected, atol=tolerance)


def test_gradients_of_half_precision_are_those_of_float32():
    half = draw((2, 6, 3, 8), jnp.bfloat16)

    def total(inputs):
        return jnp.sum(jnp.sin(attention(*inputs, causal=True).astype(jnp.float32)))

    for ours, theirs in zip(jax.grad(total)(half), jax.grad(total)([x.astype(jnp.float32) for x in half]), strict=True):
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=0.05)


def test_sizes_that_cudnn_takes():
    assert takes_cudnn(jnp.zeros((1, 3, 2, 128), jnp.bfloat16))
    assert not takes_cudnn(jnp.zeros((1, 3, 2, 512), jnp.bfloat16))
    assert not takes_cudnn(jnp.zeros((1, 3, 2, 12), jnp.bfloat16))
    assert not takes_cudnn(jnp.zeros((1, 3, 2, 64), jnp.float32))


@needs_cudnn
@pytest.mark.slow
@pytest.mark.parametrize(("length", "causal"), [(256, True), (257, False)])
def test_a_program_for_a_gpu_writes_no_probabilities(length, *, causal):
    from fqgan_jax.performance.topology import compiler_options, topology_devices

    (device,) = topology_devices("h100:1")
    here = jax.sharding.SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((2, length, 4, 64), jnp.bfloat16, sharding=here)

    def gradient(*inputs):
        return jax.grad(lambda inputs: attention(*inputs, causal=causal).astype(jnp.float32).sum())(inputs)

    text = jax.jit(gradient).lower(x, x, x).compile(compiler_options(device)).as_text()
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert not re.search(rf"\[2,4,{length + length % 2},{length + length % 2}\]", text)
