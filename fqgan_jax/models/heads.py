"""Heads: the encoder's features to one latent per sub-codebook (paper section 3.2).

`heads` is the table that the config field `model.factorization` chooses from. A head of your own is a subclass of
`Head` under the decorator `@heads("name")`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.config.registry import Registry
from fqgan_jax.errors import check
from fqgan_jax.models.blocks import Dtype, PatchConv, Transformer, resize_positions
from fqgan_jax.models.convolutions import Conv
from fqgan_jax.models.group_norm import GroupNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSizes:
    """Settings of a head.

    Attributes:
      num_codebooks: K.
      code_dim: d.
      width: channels of the encoder's features.
      grid: (h, w) for which positions are learned; other grids interpolate them (beyond the paper).
      z_channels: channels before the latents.
      adapter_depth: transformer blocks of each adapter.
      adapter_heads: attention heads of each block.
      norm_groups: number of groups of the group normalization.
      remat: "none"; or anything else, which makes the backward pass recompute the transformer blocks.
      unroll: whether the adapters and their transformer blocks follow each other in the program, instead of side by
        side and in a loop.
      dtype: data type of the computation.
    """

    num_codebooks: int
    code_dim: int
    width: int
    grid: tuple[int, int]
    z_channels: int = 256
    adapter_depth: int = 6
    adapter_heads: int = 8
    norm_groups: int = 32
    remat: str = "none"
    unroll: bool = False
    dtype: Dtype = jnp.float32


class Head(nn.Module, kw_only=True):
    """Base class of heads: `__call__` takes features [B, h, w, c] and returns latents [B, h, w, K, d]."""

    sizes: HeadSizes

    @staticmethod
    def check_sizes(sizes: HeadSizes) -> None:
        """Raises `UserError` if a head of these sizes cannot work; no size is refused by default."""

    @staticmethod
    def required_z_channels(num_codebooks: int, code_dim: int) -> int | None:
        """Returns the only `z_channels` that the head works with; None, the default, if it works with any."""


heads: Registry[type[Head]] = Registry("head")


@heads("adapters")
class AdapterHeads(Head):
    """One `AdapterHead` per sub-codebook (the paper); parameters are stacked over K and compiled once."""

    @staticmethod
    def check_sizes(sizes: HeadSizes) -> None:
        """Raises `UserError` if the adapters' width does not split into attention heads."""
        check(
            sizes.width % sizes.adapter_heads == 0,
            f"The adapters' width {sizes.width} (base_width x last multiplier) is not divisible by "
            f"model.adapter_heads={sizes.adapter_heads}.",
        )

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w K d"]:
        """Computes the latents of all sub-codebooks from the same features."""
        K = self.sizes.num_codebooks
        stacked: dict[str, Any] = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        if not self.sizes.unroll:
            heads = nn.vmap(AdapterHead, in_axes=None, out_axes=-2, axis_size=K, **stacked)
            return heads(sizes=self.sizes, name="heads")(features)
        # One after the other each keeps the batch in front, sharded, as fused attention needs it.
        in_turn = nn.scan(
            lambda head, features, _: (features, head(features)), length=K, unroll=K, out_axes=-2, **stacked
        )
        return in_turn(AdapterHead(sizes=self.sizes, name="heads"), features, None)[1]


@heads("split")
class SplitHead(Head):
    """One convolution whose channels are split K ways: product quantization, for large K."""

    @staticmethod
    def required_z_channels(num_codebooks: int, code_dim: int) -> int:
        """Returns K d."""
        return num_codebooks * code_dim

    @staticmethod
    def check_sizes(sizes: HeadSizes) -> None:
        """Raises `UserError` unless the channels split into K codes of d."""
        K, d = sizes.num_codebooks, sizes.code_dim
        required = SplitHead.required_z_channels(K, d)
        check(
            sizes.z_channels == required,
            f'model.factorization="split" cuts z_channels={sizes.z_channels} into K={K} codes of d={d}: '
            f"set model.z_channels={required}, or change K or d.",
        )

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w K d"]:
        """Computes the latents of all sub-codebooks from the same features."""
        sizes = self.sizes
        x = GroupNorm(groups=sizes.norm_groups, swish=True, dtype=sizes.dtype, name="norm_out")(features)
        x = Conv(sizes.num_codebooks * sizes.code_dim, (3, 3), dtype=sizes.dtype, name="conv_out")(x)
        return x.reshape(*x.shape[:-1], sizes.num_codebooks, sizes.code_dim)


class AdapterHead(nn.Module, kw_only=True):
    """Adapter, GroupNorm, swish, 3x3 convolution, 1x1 convolution: the latent of one sub-codebook."""

    sizes: HeadSizes

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w d"]:
        """Computes the latents of one sub-codebook."""
        sizes = self.sizes
        x = Adapter(sizes=sizes, name="adapter")(features)
        x = GroupNorm(groups=sizes.norm_groups, swish=True, dtype=sizes.dtype, name="norm_out")(x)
        x = PatchConv(width=sizes.z_channels, dtype=sizes.dtype, name="conv_out")(x)
        return nn.Dense(sizes.code_dim, dtype=sizes.dtype, name="to_latent")(x)


class Adapter(nn.Module, kw_only=True):
    """Transformer over the positions of a feature map, with learned positions and a LayerNorm at each end."""

    sizes: HeadSizes

    @nn.compact
    def __call__(self, features: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        """Applies the transformer to a feature map."""
        sizes, (B, h, w, c) = self.sizes, features.shape
        shape = (sizes.grid[0] * sizes.grid[1], c)
        positions = self.param("positions", nn.initializers.normal(c**-0.5), shape)
        x = features.reshape(B, h * w, c) + resize_positions(positions, sizes.grid, (h, w)).astype(sizes.dtype)
        x = nn.LayerNorm(epsilon=1e-5, dtype=sizes.dtype, name="norm_in")(x)
        x = Transformer(
            depth=sizes.adapter_depth,
            num_heads=sizes.adapter_heads,
            remat=sizes.remat,
            unroll=sizes.unroll,
            fused_attention=sizes.unroll,  # mapped over K, it would gather a batch that is split over devices
            dtype=sizes.dtype,
            name="transformer",
        )(x)
        return nn.LayerNorm(epsilon=1e-5, dtype=sizes.dtype, name="norm_out")(x).reshape(B, h, w, c)
