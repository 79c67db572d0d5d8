"""Discriminators: images in [-1, 1] to logits, high for real images.

`discriminators` is the table that the config field `adversarial.discriminator` chooses from. A discriminator of your
own is a subclass of `Discriminator` under the decorator `@discriminators("name")`.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fqgan_jax.config.registry import Registry
from fqgan_jax.errors import check
from fqgan_jax.models.blocks import Dtype
from fqgan_jax.models.convolutions import Conv


class Discriminator(nn.Module, kw_only=True):
    """Base class of discriminators: `__call__` takes images [B, H, W, 3] and returns logits [B, ...], float32."""

    dtype: Dtype = jnp.float32

    @staticmethod
    def check_image_size(size: tuple[int, int]) -> None:
        """Raises `UserError` if it cannot take images of this height and width; none is refused by default."""

    @classmethod
    def from_width(cls, width: int, *, dtype: Dtype) -> "Discriminator":
        """Builds the discriminator that the config field `adversarial.width` describes."""
        make: Callable[..., Discriminator] = cls  # a subclass, which has the field `width`
        return make(width=width, dtype=dtype)


discriminators: Registry[type[Discriminator]] = Registry("discriminator")


@discriminators("patch")
class PatchDiscriminator(Discriminator, kw_only=True):
    """PatchGAN: one logit per overlapping patch (Isola et al. 2017).

    4x4 convolutions, padding 1, strides 2, ..., 2, 1, 1; batch normalization after all but the first and last;
    LeakyReLU 0.2; initialized from N(0, 0.02).

    Attributes:
      width: channels of the first convolution; they double up to eight times as many.
      depth: convolutions of stride 2.
    """

    width: int = 64
    depth: int = 3

    @staticmethod
    def check_image_size(size: tuple[int, int]) -> None:
        """Raises `UserError` if images are too small."""
        side = min(size)
        check(side >= 32, f'adversarial.discriminator="patch" needs data.image_size of 32 or more, not {side}.')

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w 1"]:
        """Computes the logits of all patches."""
        conv = partial(Conv, kernel_size=(4, 4), padding=1, kernel_init=nn.initializers.normal(0.02), dtype=self.dtype)
        x = conv(self.width, strides=2, name="conv0")(images)
        x = nn.leaky_relu(x, 0.2)
        for i in range(1, self.depth + 1):
            width, stride = self.width * min(2**i, 8), 2 if i < self.depth else 1
            x = conv(width, strides=stride, use_bias=False, name=f"conv{i}")(x)
            x = nn.leaky_relu(BatchNorm(dtype=self.dtype, name=f"norm{i}")(x), 0.2)
        return conv(1, name=f"conv{self.depth + 1}")(x).astype(jnp.float32)


@discriminators("style")
class StyleDiscriminator(Discriminator, kw_only=True):
    """Residual discriminator as in StyleGAN2 (Karras et al. 2020): one logit per image, whose side is a power of two.

    Attributes:
      max_width: channels at 32x32 and below; halved with every doubling of the side above.
    """

    max_width: int = 512

    @staticmethod
    def check_image_size(size: tuple[int, int]) -> None:
        """Raises `UserError` unless images are squares whose side is a power of two."""
        height, width = size
        check(
            height == width and height >= 8 and height & (height - 1) == 0,
            'adversarial.discriminator="style" needs a power of two as data.image_size, not '
            f'{height if height == width else size}: choose "patch".',
        )

    @classmethod
    def from_width(cls, width: int, *, dtype: Dtype) -> "StyleDiscriminator":
        """Builds a discriminator whose largest width is eight times `adversarial.width`."""
        return cls(max_width=8 * width, dtype=dtype)

    def width_at(self, side: int) -> int:
        """Returns the channels of the feature maps of a side."""
        return min(self.max_width, 32 * self.max_width // side)

    @nn.compact
    def __call__(self, images: Float[Array, "B H H 3"]) -> Float[Array, "B 1"]:
        """Computes the logits of all images."""
        side = images.shape[1]
        x = Conv(self.width_at(side), (3, 3), dtype=self.dtype, name="conv_in")(images)
        x = nn.leaky_relu(x, 0.2)
        for i in range(int(np.log2(side)) - 2):
            side //= 2
            x = StyleBlock(width=self.width_at(side), dtype=self.dtype, name=f"block{i}")(x)
        x = nn.leaky_relu(Conv(self.max_width, (3, 3), dtype=self.dtype, name="conv_out")(x), 0.2)
        # Channels first, as the published weights count the inputs of the next layer.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = nn.leaky_relu(nn.Dense(self.max_width, dtype=self.dtype, name="dense")(x), 0.2)
        return nn.Dense(1, dtype=self.dtype, name="logit")(x).astype(jnp.float32)


class BatchNorm(nn.Module, kw_only=True):
    """Normalization by the statistics of the whole (global) batch, in float32, always.

    A discriminator runs in training only, so no running averages are kept.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        """Normalizes each channel over batch and positions."""
        scale = self.param("scale", _initial_scale, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:])
        standardized = jax.nn.standardize(x.astype(jnp.float32), axis=(0, 1, 2), epsilon=1e-5)
        return (standardized * scale + bias).astype(self.dtype)


def _initial_scale(key, shape):
    return 1 + 0.02 * jax.random.normal(key, shape)


class StyleBlock(nn.Module, kw_only=True):
    """Two 3x3 convolutions, blur, stride 2, beside a strided 1x1 convolution; their sum divided by sqrt(2)."""

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W c"]) -> Float[Array, "B h w {self.width}"]:
        """Halves the resolution of a feature map."""
        conv = partial(Conv, self.width, kernel_size=(3, 3), padding=1, dtype=self.dtype)
        skip = Conv(self.width, (1, 1), strides=2, dtype=self.dtype, name="skip")(x)
        x = nn.leaky_relu(conv(name="conv1")(x), 0.2)
        x = nn.leaky_relu(conv(name="conv2")(x), 0.2)
        x = conv(strides=2, name="down")(blur(x))
        return (x + skip) / math.sqrt(2)


def blur(x: Float[Array, "B H W c"]) -> Float[Array, "B H W c"]:
    """Applies the binomial 3x3 filter (1, 2, 1) x (1, 2, 1) / 16; edges are mirrored."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
