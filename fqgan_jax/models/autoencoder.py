"""The convolutional encoder and decoder (paper section 3; the VQGAN architecture, Esser et al. 2021)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.blocks import Dtype, GroupNorm, ResidualBlock, SpatialAttention, rematerialized


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    width: int
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        block, attention = (rematerialized(part, self.remat != "none") for part in (ResidualBlock, SpatialAttention))
        x = block(self.width, self.groups, self.dtype, name="block1")(x)
        x = attention(self.groups, self.dtype, name="attention")(x)
        return block(self.width, self.groups, self.dtype, name="block2")(x)


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where `attention` is set."""

    width: int
    num_blocks: int
    attention: bool
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        block, attention = (rematerialized(part, self.remat != "none") for part in (ResidualBlock, SpatialAttention))
        for i in range(self.num_blocks):
            x = block(self.width, self.groups, self.dtype, name=f"block{i}")(x)
            if self.attention:
                x = attention(self.groups, self.dtype, name=f"attention{i}")(x)
        return x


class Encoder(nn.Module):
    """Images to feature maps, each level but the last halving the resolution.

    Attributes:
      base_width: width of the first level.
      multipliers: width of each level over `base_width`; `len(multipliers) - 1` halvings.
      num_blocks: residual blocks a level.
      groups: of the group normalization.
      remat: what the backward pass computes again: "none", "blocks" or "full" (levels, and blocks within them).
    """

    base_width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w c"]:
        last = len(self.multipliers) - 1
        level, middle = (rematerialized(part, self.remat == "full") for part in (Level, Middle))
        x = nn.Conv(self.base_width, (3, 3), dtype=self.dtype, name="conv_in")(images)
        for i, multiplier in enumerate(self.multipliers):
            width = self.base_width * multiplier
            x = level(width, self.num_blocks, i == last, self.groups, self.remat, self.dtype, name=f"level{i}")(x)
            if i < last:
                # One row below and one column to the right: the published models pad unevenly.
                padding = ((0, 1), (0, 1))
                x = nn.Conv(width, (3, 3), strides=2, padding=padding, dtype=self.dtype, name=f"down{i}")(x)
        return middle(width, self.groups, self.remat, self.dtype, name="middle")(x)


class Decoder(nn.Module):
    """Feature maps to images in [-1, 1] (not clipped), in two parts; mirrors `Encoder` with one more block a level.

    The last convolution stands apart, because the adaptive adversarial weight looks at its gradient. Level names count
    from the lowest resolution, the order in which they run.
    """

    base_width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    def setup(self):
        self.conv_out = nn.Conv(3, (3, 3), dtype=self.dtype)

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        """Everything before the last convolution."""
        widths = [self.base_width * multiplier for multiplier in reversed(self.multipliers)]
        x = nn.Conv(widths[0], (3, 3), dtype=self.dtype, name="conv_in")(x)
        level, middle = (rematerialized(part, self.remat == "full") for part in (Level, Middle))
        x = middle(widths[0], self.groups, self.remat, self.dtype, name="middle")(x)
        for i, width in enumerate(widths):
            if i > 0:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = nn.Conv(widths[i - 1], (3, 3), dtype=self.dtype, name=f"up{i - 1}")(x)
            x = level(width, self.num_blocks + 1, i == 0, self.groups, self.remat, self.dtype, name=f"level{i}")(x)
        return nn.swish(GroupNorm(self.groups, self.dtype, name="norm_out")(x))

    def to_pixels(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W 3"]:
        """The last convolution, float32 out."""
        return self.conv_out(x).astype(jnp.float32)
