"""The convolutional encoder and decoder (paper section 3; the VQGAN architecture, Esser et al. 2021)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.blocks import Dtype, GroupNorm, ResidualBlock, SpatialAttention


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    width: int
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        x = ResidualBlock(self.width, self.groups, self.dtype, name="block1")(x)
        x = SpatialAttention(self.groups, self.dtype, name="attention")(x)
        return ResidualBlock(self.width, self.groups, self.dtype, name="block2")(x)


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where `attention` is set."""

    width: int
    num_blocks: int
    attention: bool
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        for i in range(self.num_blocks):
            x = ResidualBlock(self.width, self.groups, self.dtype, name=f"block{i}")(x)
            if self.attention:
                x = SpatialAttention(self.groups, self.dtype, name=f"attention{i}")(x)
        return x


class Encoder(nn.Module):
    """Images to feature maps, each level but the last halving the resolution.

    Attributes:
      base_width: width of the first level.
      multipliers: width of each level over `base_width`; `len(multipliers) - 1` halvings.
      num_blocks: residual blocks a level.
      groups: of the group normalization.
    """

    base_width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w c"]:
        last = len(self.multipliers) - 1
        x = nn.Conv(self.base_width, (3, 3), dtype=self.dtype, name="conv_in")(images)
        for i, multiplier in enumerate(self.multipliers):
            width = self.base_width * multiplier
            x = Level(width, self.num_blocks, i == last, self.groups, self.dtype, name=f"level{i}")(x)
            if i < last:
                # One row below and one column to the right: the published models pad unevenly.
                padding = ((0, 1), (0, 1))
                x = nn.Conv(width, (3, 3), strides=2, padding=padding, dtype=self.dtype, name=f"down{i}")(x)
        return Middle(width, self.groups, self.dtype, name="middle")(x)


class Decoder(nn.Module):
    """Feature maps to images in [-1, 1] (not clipped); mirrors `Encoder` with one more block a level.

    Level names count from the lowest resolution, the order in which they run.
    """

    base_width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W 3"]:
        widths = [self.base_width * multiplier for multiplier in reversed(self.multipliers)]
        x = nn.Conv(widths[0], (3, 3), dtype=self.dtype, name="conv_in")(x)
        x = Middle(widths[0], self.groups, self.dtype, name="middle")(x)
        for i, width in enumerate(widths):
            if i > 0:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = nn.Conv(widths[i - 1], (3, 3), dtype=self.dtype, name=f"up{i - 1}")(x)
            x = Level(width, self.num_blocks + 1, i == 0, self.groups, self.dtype, name=f"level{i}")(x)
        return self.to_pixels(x)

    def to_pixels(self, x: Float[Array, "B H W c"]) -> Float[Array, "B H W 3"]:
        """The last normalization and convolution, in float32 out."""
        x = nn.swish(GroupNorm(self.groups, self.dtype, name="norm_out")(x))
        return nn.Conv(3, (3, 3), dtype=self.dtype, name="conv_out")(x).astype(jnp.float32)
