"""Convolutions of each channel on its own against XLA's grouped ones."""

import jax
import numpy as np
import pytest
from jax import lax

from fqgan_jax.pretrained.convolutions import convolve_channels


@pytest.mark.parametrize(("side", "kernel_side", "stride"), [(8, 3, 1), (8, 3, 2), (9, 5, 2), (7, 5, 1)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_outputs_and_gradients(side, kernel_side, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, side, side, 6)).astype(np.float32)
    kernel = rng.standard_normal((kernel_side, kernel_side, 1, 6)).astype(np.float32)

    def grouped(x, kernel):
        axes = ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=axes, feature_group_count=6)

    def ours(x, kernel):
        return convolve_channels(x, kernel, (stride, stride), padding)

    (expected, pull_expected), (found, pull_found) = (jax.vjp(f, x, kernel) for f in (grouped, ours))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    cotangent = rng.standard_normal(expected.shape).astype(np.float32)
    for gradient, expected_gradient in zip(pull_found(cotangent), pull_expected(cotangent), strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
