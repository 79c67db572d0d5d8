"""Convolutions and their gradients against XLA's and NumPy's, in every way that the models use them."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from fqgan_jax.models import convolutions
from fqgan_jax.models.convolutions import Conv, convolve
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.performance.traffic import read_traffic
from fqgan_jax.sharding.mesh import batch_sharding, make_mesh

# Window, stride and padding of the models' convolutions.
KINDS = {
    "residual": ((3, 3), 1, ((1, 1), (1, 1))),
    "down": ((3, 3), 2, ((0, 1), (0, 1))),
    "shortcut": ((1, 1), 1, ((0, 0), (0, 0))),
    "skip": ((1, 1), 2, ((0, 0), (0, 0))),
    "patch": ((4, 4), 2, ((1, 1), (1, 1))),
    "oblong": ((3, 2), 1, ((2, 0), (1, 3))),
}


def plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def problem(kind: str, shape=(2, 70, 68, 3), width=5):
    """A convolution's settings, random inputs and a cotangent of its result."""
    window, stride, padding = KINDS[kind]
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (*window, shape[-1], width))
    settings = {"strides": (stride, stride), "padding": padding}
    result = jax.eval_shape(partial(plain, **settings), x, kernel)
    return settings, x, kernel, jax.random.normal(keys[2], result.shape)


def gradients(function, x, kernel, cotangent):
    result, pull_back = jax.vjp(function, x, kernel)
    return result, *pull_back(cotangent)


def assert_close(actual, expected, tolerance=1e-5):
    """Relative to the largest; XLA's own kernel gradient is off by up to 4e-6 after its thousands of additions."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    settings, x, kernel, cotangent = problem(kind)
    assert cotangent.shape[1] * cotangent.shape[2] >= convolutions._LARGE_MAP
    result, x_gradient, kernel_gradient = jax.jit(partial(gradients, partial(convolve, **settings)))(
        x, kernel, cotangent
    )
    expected = jax.jit(partial(gradients, partial(plain, **settings)))(x, kernel, cotangent)
    np.testing.assert_array_equal(result, expected[0])
    np.testing.assert_array_equal(x_gradient, expected[1])
    assert_close(kernel_gradient, expected[2])
    assert_close(kernel_gradient, by_definition(x, kernel.shape, cotangent, **settings), tolerance=1e-6)


def test_bfloat16_is_summed_in_float32():
    settings, *inputs = problem("residual")
    x, kernel, cotangent = (leaf.astype(jnp.bfloat16) for leaf in inputs)
    actual = jax.jit(partial(gradients, partial(convolve, **settings)))(x, kernel, cotangent)[2]
    expected = by_definition(x, kernel.shape, cotangent, **settings)
    assert actual.dtype == jnp.bfloat16
    # Rounded once, to eight bits.
    np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=2**-8, atol=1e-4)


def by_definition(x, shape, cotangent, *, strides, padding):
    """The kernel's gradient in double precision: what every tap met, times the cotangent."""
    padded, cotangent = np.pad(np.asarray(x, np.float64), ((0, 0), *padding, (0, 0))), np.asarray(cotangent, np.float64)
    (h, w), s, gradient = cotangent.shape[1:3], strides[0], np.empty(shape)
    for i, j in np.ndindex(shape[:2]):
        met = padded[:, i : i + s * (h - 1) + 1 : s, j : j + s * (w - 1) + 1 : s]
        gradient[i, j] = np.einsum("bhwc,bhwo->co", met, cotangent)
    return gradient


def test_layer_is_flax_own():
    x = jax.random.normal(jax.random.key(0), (1, 9, 8, 3))
    layer = partial(Conv, 4, (3, 3), strides=2)
    params = layer().init(jax.random.key(1), x)
    np.testing.assert_array_equal(layer().apply(params, x), nn.Conv(4, (3, 3), strides=2).apply(params, x))
    with pytest.raises(NotImplementedError, match="groups"):
        Conv(3, (3, 3), feature_group_count=3).init(jax.random.key(1), x)


def test_gradient_of_a_gradient():
    settings, x, kernel, _ = problem("residual")

    def penalty(function, kernel):
        def total(x):
            return jnp.sum(jnp.sin(function(x, kernel, **settings)))

        return jnp.sum(jax.grad(total)(x) ** 2)

    def through_the_kernels_gradient(function, x):
        def total(kernel):
            return jnp.sum(jnp.sin(function(x, kernel, **settings)))

        return jnp.sum(jax.grad(total)(kernel) ** 2)

    for objective, at in ((penalty, kernel), (through_the_kernels_gradient, x)):
        actual, expected = (jax.jit(jax.grad(partial(objective, f)))(at) for f in (convolve, plain))
        assert_close(actual, expected)


def test_stacked_and_rematerialized():
    settings, x, kernel, cotangent = problem("residual")
    x, kernel, cotangent = (jnp.stack([leaf, 2 * leaf]) for leaf in (x, kernel, cotangent))

    def stacked(function):
        return jax.jit(jax.vmap(partial(gradients, jax.checkpoint(partial(function, **settings)))))

    assert_close(stacked(convolve)(x, kernel, cotangent), stacked(plain)(x, kernel, cotangent))


def test_batch_over_devices():
    settings, *inputs = problem("residual", shape=(16, 40, 40, 3))
    step = jax.jit(partial(gradients, partial(convolve, **settings)))
    mesh = make_mesh({"data": -1})
    whole = NamedSharding(mesh, PartitionSpec())
    placed = jax.device_put(tuple(inputs), (batch_sharding(mesh), whole, batch_sharding(mesh)))
    assert_close(step(*placed), step(*inputs))
    collectives = read_traffic(step.lower(*placed).compile().as_text(), [0] * 8).collectives
    kernel_bytes = inputs[1].nbytes
    assert [(each.kind, each.count, each.bytes) for each in collectives] == [("all-reduce", 1, kernel_bytes)]


def test_programs_for_other_platforms_do_not_change():
    settings, *inputs = problem("residual")

    def operations(function, platform):
        traced = jax.jit(lambda *inputs: gradients(partial(function, **settings), *inputs)).trace(*inputs)
        lines = traced.lower(lowering_platforms=(platform,)).as_text().splitlines()
        found = (re.search(r"stablehlo\.(convolution|dot_general|while).*", line) for line in lines)
        return sorted(re.sub(r"%\w+", "%", each[0]) for each in found if each)

    for platform in ("cuda", "tpu"):
        assert operations(convolve, platform) == operations(plain, platform)
    assert operations(convolve, "cpu") != operations(plain, "cpu")


def test_operations_are_those_of_convolutions():
    settings, *inputs = problem("residual")
    counts = [count_flops(partial(gradients, partial(function, **settings)), *inputs) for function in (convolve, plain)]
    assert counts[0] == counts[1]
