"""From the encoder's features to one latent per sub-codebook: the heads before quantization (paper section 3.2)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.blocks import Dtype, GroupNorm, PatchConv, Transformer, resize_positions


class Adapter(nn.Module):
    """Transformer over the positions of a feature map, with learned positions and a LayerNorm at each end.

    Attributes:
      grid: the grid for which positions are learned; other grids interpolate them (beyond the paper).
      depth: transformer blocks.
      num_heads: attention heads a block.
      remat: what the backward pass computes again: "none", or the blocks.
    """

    grid: tuple[int, int]
    depth: int = 6
    num_heads: int = 8
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        B, h, w, c = features.shape
        shape = (self.grid[0] * self.grid[1], c)
        positions = self.param("positions", nn.initializers.normal(c**-0.5), shape)
        x = features.reshape(B, h * w, c) + resize_positions(positions, self.grid, (h, w)).astype(self.dtype)
        x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_in")(x)
        x = Transformer(self.depth, self.num_heads, self.remat, self.dtype, name="transformer")(x)
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_out")(x).reshape(B, h, w, c)


class AdapterHead(nn.Module):
    """Adapter, GroupNorm, swish, 3x3 convolution, 1x1 convolution: the latent of one sub-codebook."""

    grid: tuple[int, int]
    z_channels: int
    code_dim: int
    depth: int = 6
    num_heads: int = 8
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w d"]:
        x = Adapter(self.grid, self.depth, self.num_heads, self.remat, self.dtype, name="adapter")(features)
        x = nn.swish(GroupNorm(self.groups, self.dtype, name="norm_out")(x))
        x = PatchConv(self.z_channels, self.dtype, name="conv_out")(x)
        return nn.Dense(self.code_dim, dtype=self.dtype, name="to_latent")(x)


class AdapterHeads(nn.Module):
    """One `AdapterHead` per sub-codebook, parameters stacked over K and compiled once (`factorization="adapters"`)."""

    num_codebooks: int
    grid: tuple[int, int]
    z_channels: int
    code_dim: int
    depth: int = 6
    num_heads: int = 8
    groups: int = 32
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w K d"]:
        heads = nn.vmap(
            AdapterHead,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=-2,
            axis_size=self.num_codebooks,
        )
        sizes = (self.grid, self.z_channels, self.code_dim, self.depth, self.num_heads, self.groups)
        return heads(*sizes, self.remat, self.dtype, name="heads")(features)


class SplitHead(nn.Module):
    """One convolution whose channels are split K ways: product quantization (`factorization="split"`), for large K."""

    num_codebooks: int
    code_dim: int
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w K d"]:
        x = nn.swish(GroupNorm(self.groups, self.dtype, name="norm_out")(features))
        x = nn.Conv(self.num_codebooks * self.code_dim, (3, 3), dtype=self.dtype, name="conv_out")(x)
        return x.reshape(*x.shape[:-1], self.num_codebooks, self.code_dim)
