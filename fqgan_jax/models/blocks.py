"""Building blocks shared by the tokenizer's networks."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.sharding.mesh import keep_batch_sharded

Dtype = jnp.dtype


def rematerialized(module: type[nn.Module], wanted: bool) -> type[nn.Module]:
    """The module class, whose inner values the backward pass computes again instead of keeping them, where wanted."""
    return nn.remat(module) if wanted else module


class GroupNorm(nn.Module):
    """Group normalization, statistics in float32; fewer groups where they do not divide the width.

    Groups of one channel forget an image's brightness and colour: give narrow models fewer groups.
    """

    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        groups = math.gcd(self.groups, x.shape[-1])
        return nn.GroupNorm(groups, epsilon=1e-6, dtype=self.dtype, name="norm")(x)


class ResidualBlock(nn.Module):
    """GroupNorm, swish, 3x3 convolution, twice, on a skip connection (1x1 where the width changes)."""

    width: int
    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        y = nn.swish(GroupNorm(self.groups, self.dtype, name="norm1")(x))
        y = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv1")(y)
        y = nn.swish(GroupNorm(self.groups, self.dtype, name="norm2")(y))
        y = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return x + y


class SpatialAttention(nn.Module):
    """Residual self-attention over all positions of a map, one head of full width."""

    groups: int = 32
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        B, h, w, c = x.shape
        y = GroupNorm(self.groups, self.dtype, name="norm")(x).reshape(B, h * w, 1, c)
        query, key, value = (nn.Dense(c, dtype=self.dtype, name=name)(y) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(query, key, value)
        return x + nn.Dense(c, dtype=self.dtype, name="out")(y).reshape(B, h, w, c)


class PatchConv(nn.Module):
    """3x3 convolution computed as one matrix product over 3x3 patches.

    Under `nn.vmap` with stacked kernels `nn.Conv` becomes a grouped convolution, which runs several times slower;
    a batched matrix product does not. Parameters have `nn.Conv`'s shapes.
    """

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w {self.width}"]:
        h, w, c = x.shape[1:]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, c, self.width))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = [padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return jnp.concatenate(shifts, axis=-1) @ kernel.reshape(9 * c, self.width) + bias


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with an MLP four times as wide and exact GELU; LayerNorm eps 1e-5."""

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        B, T, D = x.shape
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm1")(x)
        qkv = nn.Dense(3 * D, dtype=self.dtype, name="qkv")(y)
        query, key, value = jnp.split(qkv.reshape(B, T, 3 * self.num_heads, D // self.num_heads), 3, axis=2)
        y = jax.nn.dot_product_attention(query, key, value).reshape(B, T, D)
        x = x + nn.Dense(D, dtype=self.dtype, name="out")(y)
        y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm2")(x)
        y = nn.gelu(nn.Dense(4 * D, dtype=self.dtype, name="mlp_in")(y), approximate=False)
        return x + nn.Dense(D, dtype=self.dtype, name="mlp_out")(y)


class Transformer(nn.Module):
    """`depth` transformer blocks with parameters stacked over depth, compiled once."""

    depth: int
    num_heads: int
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        if not self.depth:
            return x
        # Inside a scan nothing is merged with the forward pass anyway.
        block = TransformerBlock if self.remat == "none" else nn.remat(TransformerBlock, prevent_cse=False)
        stack = nn.scan(
            lambda block, x, _: (block(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        x, _ = stack(block(self.num_heads, self.dtype, name="blocks"), keep_batch_sharded(x), None)
        return keep_batch_sharded(x)


def resize_positions(
    positions: Float[Array, "T D"], learned: tuple[int, int], grid: tuple[int, int]
) -> Float[Array, "T2 D"]:
    """Learned positions of a `learned` grid, interpolated (bicubic) to `grid`; untouched where the grids agree."""
    if learned == grid:
        return positions
    table = positions.reshape(*learned, -1)
    return jax.image.resize(table, (*grid, table.shape[-1]), "cubic").reshape(grid[0] * grid[1], -1)
