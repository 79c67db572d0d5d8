"""Building blocks that the tokenizer's networks share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.attention import attention, plain_attention
from fqgan_jax.models.convolutions import Conv
from fqgan_jax.models.group_norm import GroupNorm
from fqgan_jax.sharding.mesh import keep_batch_sharded

Dtype = jnp.dtype


def rematerialized(module_class: type[nn.Module], *, enabled: bool) -> type[nn.Module]:
    """Returns the module class, with activations that the backward pass recomputes instead of storing if `enabled`."""
    return nn.remat(module_class) if enabled else module_class


class ResidualBlock(nn.Module, kw_only=True):
    """GroupNorm, swish and 3x3 convolution, twice, beside a skip connection (1x1 convolution if the width changes)."""

    width: int
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        """Applies the block to a feature map."""
        y = GroupNorm(groups=self.groups, swish=True, dtype=self.dtype, name="norm1")(x)
        y = Conv(self.width, (3, 3), dtype=self.dtype, name="conv1")(y)
        y = GroupNorm(groups=self.groups, swish=True, dtype=self.dtype, name="norm2")(y)
        y = Conv(self.width, (3, 3), dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] != self.width:
            x = Conv(self.width, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return x + y


class SpatialAttention(nn.Module, kw_only=True):
    """Residual self-attention over all positions of a feature map, with one head of full width."""

    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        """Applies attention to a feature map."""
        B, h, w, c = x.shape
        y = GroupNorm(groups=self.groups, dtype=self.dtype, name="norm")(x).reshape(B, h * w, 1, c)
        query, key, value = (nn.Dense(c, dtype=self.dtype, name=name)(y) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(query, key, value)
        return x + nn.Dense(c, dtype=self.dtype, name="out")(y).reshape(B, h, w, c)


class PatchConv(nn.Module, kw_only=True):
    """3x3 convolution, computed as one matrix product over 3x3 patches.

    Under `nn.vmap` with stacked kernels `nn.Conv` becomes a grouped convolution, which runs several times slower;
    a batched matrix product does not. The parameters have the shapes of `nn.Conv`.
    """

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        """Convolves a feature map, padded with zeros."""
        h, w, c = x.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, c, self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return jnp.concatenate(shifts, axis=-1) @ kernel.reshape(9 * c, self.width) + bias


class TransformerBlock(nn.Module, kw_only=True):
    """Pre-norm transformer block: LayerNorm eps 1e-5, biases, an MLP four times as wide with exact GELU.

    Attributes:
      num_heads: attention heads.
      fused_attention: whether GPUs may run fused attention, see `attention`.
    """

    num_heads: int
    fused_attention: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the block to a sequence; every position attends to every other."""
        B, T, D = x.shape
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm1")(x)
        qkv = nn.Dense(3 * D, dtype=self.dtype, name="qkv")(y)
        query, key, value = jnp.split(qkv.reshape(B, T, 3 * self.num_heads, D // self.num_heads), 3, axis=2)
        attend = attention if self.fused_attention else plain_attention
        y = attend(query, key, value).reshape(B, T, D)
        x = x + nn.Dense(D, dtype=self.dtype, name="out")(y)
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm2")(x)
        y = nn.gelu(nn.Dense(4 * D, dtype=self.dtype, name="mlp_in")(y), approximate=False)
        return x + nn.Dense(D, dtype=self.dtype, name="mlp_out")(y)


class Transformer(nn.Module, kw_only=True):
    """`depth` transformer blocks whose parameters are stacked over depth, compiled once unless `unroll` is set.

    Attributes:
      depth: number of blocks; with 0 the input is returned.
      num_heads: attention heads of each block.
      remat: "none"; or anything else, which makes the backward pass recompute the blocks.
      unroll: whether the blocks follow each other in the program instead of running in a loop.
      fused_attention: see `TransformerBlock`.
    """

    depth: int
    num_heads: int
    remat: str = "none"
    unroll: bool = False
    fused_attention: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies all blocks to a sequence."""
        if self.depth == 0:
            return x
        # Inside a scan nothing is merged with the forward pass anyway.
        block = TransformerBlock if self.remat == "none" else nn.remat(TransformerBlock, prevent_cse=self.unroll)
        stack = nn.scan(
            lambda block, x, _: (block(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=self.depth if self.unroll else 1,
        )
        blocks = block(num_heads=self.num_heads, fused_attention=self.fused_attention, dtype=self.dtype, name="blocks")
        x, _ = stack(blocks, keep_batch_sharded(x), None)
        return keep_batch_sharded(x)


def resize_positions(
    positions: Float[Array, "T D"], learned: tuple[int, int], grid: tuple[int, int]
) -> Float[Array, "T2 D"]:
    """Interpolates (bicubic) the positions learned for the grid `learned` to `grid`; no change if they are equal."""
    if learned == grid:
        return positions
    table = positions.reshape(*learned, -1)
    return jax.image.resize(table, (*grid, table.shape[-1]), "cubic").reshape(grid[0] * grid[1], -1)
