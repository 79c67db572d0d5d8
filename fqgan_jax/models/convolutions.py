"""Convolutions whose kernel's gradient is fast on CPUs too."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_AXES = ("NHWC", "HWIO", "NHWC")
_LARGE_MAP = 32 * 32  # positions from which on products of matrices are faster
_BLOCK = 512  # positions whose patches are multiplied at a time: a few megabytes, which a CPU's cache holds


def convolve(
    x: Float[Array, "B H W c"],
    kernel: Float[Array, "i j c o"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **settings: Any,
) -> Float[Array, "B h w o"]:
    """Convolves as `jax.lax.conv_general_dilated` does, with another formula for the kernel's gradient on CPUs.

    XLA's CPU compiler computes this gradient as a convolution with a kernel as large as the feature map, on large maps
    several times slower than the products of matrices here. The result is the same to rounding; programs for other
    platforms do not change. As any function with a gradient of its own, it has no forward-mode derivative (`jax.jvp`).

    Args:
      x: feature maps.
      kernel: of all images.
      strides: of rows and columns.
      padding: of rows and columns, or the name of a rule ("SAME", "VALID").
      settings: as Flax passes them; dilation and groups are not supported.
    """
    dilations = (*settings.get("lhs_dilation", (1,)), *settings.get("rhs_dilation", (1,)))
    if set(dilations) != {1} or settings.get("feature_group_count", 1) != 1:
        raise NotImplementedError("convolutions with dilation or groups")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    steps = _Steps(tuple(strides), tuple((low, high) for low, high in padding), settings.get("precision"))
    return _convolve(steps, x, kernel)


Conv = partial(nn.Conv, conv_general_dilated=convolve)


class _Steps(NamedTuple):
    """How a kernel moves over a feature map."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    precision: Any


def _forward(steps: _Steps, x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, steps.strides, steps.padding, dimension_numbers=_AXES, precision=steps.precision
    )


_convolve = jax.custom_vjp(_forward, nondiff_argnums=(0,))


def _forward_with_residuals(steps: _Steps, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(steps, x, kernel), (x, kernel)


def _backward(steps: _Steps, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = residuals

    def from_convolution(x, cotangent):
        return jax.linear_transpose(partial(_forward, steps, x), kernel)(cotangent)[0]

    def from_products(x, cotangent):
        return _kernel_gradient(x, cotangent, window=kernel.shape[:2], steps=steps)

    (x_gradient,) = jax.linear_transpose(lambda x: _forward(steps, x, kernel), x)(cotangent)
    if cotangent.shape[1] * cotangent.shape[2] < _LARGE_MAP:
        return x_gradient, from_convolution(x, cotangent)
    return x_gradient, lax.platform_dependent(x, cotangent, cpu=from_products, default=from_convolution)


_convolve.defvjp(_forward_with_residuals, _backward)


def _kernel_gradient(
    x: Float[Array, "B H W c"], cotangent: Float[Array, "B h w o"], *, window: tuple[int, ...], steps: _Steps
) -> Float[Array, "i j c o"]:
    """Multiplies the patches of x, a block of rows at a time, by the cotangent; images are added last.

    So, if a batch is spread over devices, they add up once.
    """
    (B, h, w, o), c, (down, right) = cotangent.shape, x.shape[-1], steps.strides
    rows = max(r for r in range(1, h + 1) if h % r == 0 and r * w <= max(_BLOCK, w))
    padded = jnp.pad(x, ((0, 0), *steps.padding, (0, 0)))
    height, width = (rows - 1) * down + 1, (w - 1) * right + 1

    def patches(row):
        band = lax.dynamic_slice_in_dim(padded, row * down, height + window[0] - 1, axis=1)
        shifts = [
            band[:, i : i + height : down, j : j + width : right] for i in range(window[0]) for j in range(window[1])
        ]
        return jnp.concatenate(shifts, axis=-1).reshape(B, rows * w, -1)

    def add_block(total, row):
        block = lax.dynamic_slice_in_dim(cotangent, row, rows, axis=1).reshape(B, rows * w, o)
        product = jnp.matmul(block.mT, patches(row), precision=steps.precision, preferred_element_type=total.dtype)
        return total + product, None

    zeros = jnp.zeros((B, o, window[0] * window[1] * c), jnp.promote_types(x.dtype, jnp.float32))
    total, _ = lax.scan(add_block, zeros, jnp.arange(0, h, rows))
    return jnp.sum(total, axis=0).T.reshape(*window, c, o).astype(x.dtype)
