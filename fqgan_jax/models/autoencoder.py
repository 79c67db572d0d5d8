"""The convolutional encoder and decoder (paper section 3; the VQGAN architecture, Esser et al. 2021)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.blocks import Dtype, ResidualBlock, SpatialAttention, rematerialized
from fqgan_jax.models.convolutions import Conv
from fqgan_jax.models.group_norm import GroupNorm


class Middle(nn.Module, kw_only=True):
    """Residual block, attention, residual block at the lowest resolution."""

    width: int
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        """Applies the three parts to a feature map."""
        block = rematerialized(ResidualBlock, enabled=self.remat != "none")
        attention = rematerialized(SpatialAttention, enabled=self.remat != "none")
        x = block(width=self.width, groups=self.groups, dtype=self.dtype, name="block1")(x)
        x = attention(groups=self.groups, dtype=self.dtype, name="attention")(x)
        return block(width=self.width, groups=self.groups, dtype=self.dtype, name="block2")(x)


class Level(nn.Module, kw_only=True):
    """Residual blocks at one resolution, each followed by attention if `attention` is set."""

    width: int
    num_blocks: int
    attention: bool
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        """Applies the blocks to a feature map."""
        block = rematerialized(ResidualBlock, enabled=self.remat != "none")
        attention = rematerialized(SpatialAttention, enabled=self.remat != "none")
        for i in range(self.num_blocks):
            x = block(width=self.width, groups=self.groups, dtype=self.dtype, name=f"block{i}")(x)
            if self.attention:
                x = attention(groups=self.groups, dtype=self.dtype, name=f"attention{i}")(x)
        return x


class Encoder(nn.Module, kw_only=True):
    """Images to feature maps; every level but the last halves the resolution.

    Attributes:
      base_width: width of the first level.
      multipliers: width of each level, as a multiple of `base_width`; `len(multipliers) - 1` halvings.
      num_blocks: residual blocks of each level.
      groups: number of groups of the group normalization.
      remat: what the backward pass recomputes: "none", "blocks" or "full" (levels, and blocks within them).
      dtype: data type of the computation.
    """

    base_width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w c"]:
        """Encodes images in [-1, 1]."""
        level = rematerialized(Level, enabled=self.remat == "full")
        middle = rematerialized(Middle, enabled=self.remat == "full")
        last = len(self.multipliers) - 1
        x = Conv(self.base_width, (3, 3), dtype=self.dtype, name="conv_in")(images)
        for i, multiplier in enumerate(self.multipliers):
            width = self.base_width * multiplier
            x = level(
                width=width,
                num_blocks=self.num_blocks,
                attention=i == last,
                groups=self.groups,
                remat=self.remat,
                dtype=self.dtype,
                name=f"level{i}",
            )(x)
            if i < last:
                # One row below and one column to the right: the published models pad unevenly.
                padding = ((0, 1), (0, 1))
                x = Conv(width, (3, 3), strides=2, padding=padding, dtype=self.dtype, name=f"down{i}")(x)
        return middle(width=width, groups=self.groups, remat=self.remat, dtype=self.dtype, name="middle")(x)


class Decoder(nn.Module, kw_only=True):
    """Feature maps to images in [-1, 1] (not clipped), in two parts; mirrors `Encoder` with one more block per level.

    The last convolution is a method of its own, because the adaptive adversarial weight uses its gradient. Levels are
    numbered from the lowest resolution, the order in which they run. Attributes are those of `Encoder`.
    """

    base_width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    def setup(self):
        """Builds the last convolution."""
        self.conv_out = Conv(3, (3, 3), dtype=self.dtype)

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        """Computes everything before the last convolution."""
        level = rematerialized(Level, enabled=self.remat == "full")
        middle = rematerialized(Middle, enabled=self.remat == "full")
        widths = [self.base_width * multiplier for multiplier in reversed(self.multipliers)]
        x = Conv(widths[0], (3, 3), dtype=self.dtype, name="conv_in")(x)
        x = middle(width=widths[0], groups=self.groups, remat=self.remat, dtype=self.dtype, name="middle")(x)
        for i, width in enumerate(widths):
            if i > 0:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = Conv(widths[i - 1], (3, 3), dtype=self.dtype, name=f"up{i - 1}")(x)
            x = level(
                width=width,
                num_blocks=self.num_blocks + 1,
                attention=i == 0,
                groups=self.groups,
                remat=self.remat,
                dtype=self.dtype,
                name=f"level{i}",
            )(x)
        return GroupNorm(groups=self.groups, swish=True, dtype=self.dtype, name="norm_out")(x)

    def to_pixels(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W 3"]:
        """Applies the last convolution; returns float32."""
        return self.conv_out(x).astype(jnp.float32)
