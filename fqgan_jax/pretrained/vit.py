"""One vision transformer for CLIP (Radford et al. 2021) and DINOv2 (Oquab et al. 2023, with registers Darcet 2023)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.attention import attention

Dtype = jnp.dtype


def gelu(x: Array) -> Array:
    """The exact GELU (Hendrycks & Gimpel 2016)."""
    return nn.gelu(x, approximate=False)


def quick_gelu(x: Array) -> Array:
    """CLIP's approximation of the GELU."""
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}


class ViTBlock(nn.Module):
    """Pre-norm transformer block; with `layer_scale` both branches are scaled per channel."""

    num_heads: int
    mlp_width: int
    activation: str
    layer_scale: bool
    norm_eps: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the block to a sequence."""
        B, T, D = x.shape
        dense = partial(nn.Dense, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=self.norm_eps, dtype=self.dtype)

        y = norm(name="norm1")(x)
        heads = (B, T, self.num_heads, D // self.num_heads)
        query, key, value = (dense(D, name=name)(y).reshape(heads) for name in ("query", "key", "value"))
        y = attention(query, key, value).reshape(B, T, D)
        x = x + self._scaled("scale1", dense(D, name="out")(y))
        y = ACTIVATIONS[self.activation](dense(self.mlp_width, name="mlp_in")(norm(name="norm2")(x)))
        return x + self._scaled("scale2", dense(D, name="mlp_out")(y))

    def _scaled(self, name: str, branch: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        if not self.layer_scale:
            return branch
        scale = self.param(name, nn.initializers.ones_init(), branch.shape[-1:])
        return branch * scale.astype(self.dtype)


class ViT(nn.Module):
    """The class token of the last block, from normalized square images.

    Attributes:
      width, depth, num_heads, mlp_width, patch_size: sizes.
      image_size: side of the images, which fixes the number of positions.
      activation: of the MLPs, a name in ACTIVATIONS.
      num_registers: extra tokens after the class token, without positions.
      patch_bias, layer_scale: whether patches have a bias and branches a scale (DINOv2).
      norm_in, norm_out: LayerNorm before the first block (CLIP), after the last (DINOv2).
      norm_eps: of all LayerNorms.
      dtype: of the computation; parameters, normalization statistics and the output stay float32.
    """

    width: int
    depth: int
    num_heads: int
    mlp_width: int
    patch_size: int
    image_size: int = 224
    activation: str = "gelu"
    num_registers: int = 0
    patch_bias: bool = False
    layer_scale: bool = False
    norm_in: bool = False
    norm_out: bool = False
    norm_eps: float = 1e-6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B {self.image_size} {self.image_size} 3"]) -> Float[Array, "B W"]:
        """Returns the class token of each image."""
        B, D = images.shape[0], self.width
        norm = partial(nn.LayerNorm, epsilon=self.norm_eps, dtype=self.dtype)
        patches = nn.Conv(
            D,
            kernel_size=(self.patch_size, self.patch_size),
            strides=(self.patch_size, self.patch_size),
            padding="VALID",
            use_bias=self.patch_bias,
            dtype=self.dtype,
            name="patches",
        )(images)
        first = jnp.broadcast_to(self._tokens("class_token", D), (B, 1, D))
        x = jnp.concatenate([first, patches.reshape(B, -1, D)], axis=1)
        x = x + self._tokens("positions", 1 + (self.image_size // self.patch_size) ** 2, D)
        if self.num_registers:
            registers = self._tokens("registers", self.num_registers, D)
            registers = jnp.broadcast_to(registers, (B, self.num_registers, D))
            x = jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)
        if self.norm_in:
            x = norm(name="norm_in")(x)
        stack = nn.scan(_apply_block, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        block = ViTBlock(
            num_heads=self.num_heads,
            mlp_width=self.mlp_width,
            activation=self.activation,
            layer_scale=self.layer_scale,
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            name="blocks",
        )
        x, _ = stack(block, x, None)
        x = x[:, 0]
        if self.norm_out:
            x = norm(name="norm_out")(x)
        return x.astype(jnp.float32)

    def _tokens(self, name: str, *shape: int) -> Array:
        """Learned tokens, in the dtype of the computation."""
        return self.param(name, nn.initializers.normal(0.02), shape).astype(self.dtype)


def _apply_block(block: ViTBlock, x: Array, _: None) -> tuple[Array, None]:
    return block(x), None


def clip_vit(*, width: int, **fields) -> ViT:
    """Returns CLIP's image tower; its output is the class token before the final LayerNorm."""
    defaults: dict[str, Any] = {"activation": "quick_gelu", "norm_eps": 1e-5, "norm_in": True}
    return ViT(**defaults | {"width": width, "mlp_width": 4 * width} | fields)


def dino_vit(*, width: int, **fields) -> ViT:
    """Returns DINOv2; its output is the class token after the final LayerNorm."""
    defaults: dict[str, Any] = {"patch_size": 14, "patch_bias": True, "layer_scale": True, "norm_out": True}
    return ViT(**defaults | {"width": width, "mlp_width": 4 * width} | fields)
