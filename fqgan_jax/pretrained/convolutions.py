"""The unit that published convolutional classifiers are made of, and the names of its tensors."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from fqgan_jax.interop.correspondence import Layout, Rule

Dtype = jnp.dtype

# Statistics are compared across machines: no reduced precision on any of them.
PRECISION = lax.Precision.HIGHEST
EPSILON = 1e-3


class ConvNorm(nn.Module):
    """A convolution without bias, batch normalization by stored statistics, and an activation.

    Attributes:
      width: channels of the output.
      kernel: height and width of the kernel.
      stride: in both directions.
      padding: "SAME" (TensorFlow's: the odd pixel at the end) or "VALID".
      depthwise: whether each channel is convolved on its own; `width` is then that of the input.
      activation: applied last; None: none.
      dtype: data type of convolution and output; the normalization is computed in float32.
    """

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"
    depthwise: bool = False
    activation: Callable[[Array], Array] | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w C"]:
        """Applies the unit."""
        conv = nn.Conv(
            self.width,
            self.kernel,
            (self.stride, self.stride),
            self.padding,
            feature_group_count=self.width if self.depthwise else 1,
            conv_general_dilated=convolve_channels if self.depthwise else lax.conv_general_dilated,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            precision=PRECISION,
            dtype=self.dtype,
            name="conv",
        )
        one, zero, shape = nn.initializers.ones, nn.initializers.zeros, (self.width,)
        scale, bias = self.param("scale", one, shape), self.param("bias", zero, shape)
        mean, variance = self.param("mean", zero, shape), self.param("variance", one, shape)
        y = (conv(x) - mean) * (scale / jnp.sqrt(variance + EPSILON)) + bias
        y = y.astype(self.dtype)
        return y if self.activation is None else self.activation(y)


def convolve_channels(
    x: Float[Array, "B H W c"],
    kernel: Float[Array, "i j 1 c"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **_: object,
) -> Float[Array, "B h w c"]:
    """Convolves each channel on its own, as a sum of shifted products in float32.

    XLA's CPU compiler does not fuse grouped convolutions: forward they take ten times as long, backward up to twenty.

    Args:
      x: feature maps.
      kernel: one for each channel.
      strides: of rows and columns.
      padding: of rows and columns, or the name of a rule ("SAME", "VALID").
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0))).astype(jnp.float32)
    rows, columns = (
        (padded.shape[axis] - kernel.shape[axis - 1]) // stride * stride + 1
        for axis, stride in zip((1, 2), strides, strict=True)
    )
    shifted = (
        padded[:, i : i + rows : strides[0], j : j + columns : strides[1]] * kernel[i, j, 0]
        for i, j in np.ndindex(kernel.shape[:2])
    )
    return sum(shifted, jnp.float32(0)).astype(x.dtype)


def unit_rules(path: str, *, convolution: str, normalization: str) -> tuple[Rule, ...]:
    """Returns the rules of a `ConvNorm` at a path, whose two published layers have these names."""
    return (
        Rule(f"{path}/conv/kernel", f"{convolution}.weight", Layout.KERNEL),
        Rule(f"{path}/scale", f"{normalization}.weight"),
        Rule(f"{path}/bias", f"{normalization}.bias"),
        Rule(f"{path}/mean", f"{normalization}.running_mean"),
        Rule(f"{path}/variance", f"{normalization}.running_var"),
    )
