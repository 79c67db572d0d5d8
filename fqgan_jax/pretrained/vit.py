"""One vision transformer for CLIP (Radford et al. 2021) and DINOv2 (Oquab et al. 2023, with registers Darcet 2023)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Dtype = jnp.dtype

ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}


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
        B, T, D = x.shape
        dense = lambda width, name: nn.Dense(width, dtype=self.dtype, name=name)
        norm = lambda name: nn.LayerNorm(epsilon=self.norm_eps, dtype=self.dtype, name=name)
        ones = nn.initializers.ones_init()
        scale = lambda name: self.param(name, ones, (D,)).astype(self.dtype) if self.layer_scale else 1

        y = norm("norm1")(x)
        heads = (B, T, self.num_heads, D // self.num_heads)
        query, key, value = (dense(D, name)(y).reshape(heads) for name in ("query", "key", "value"))
        y = jax.nn.dot_product_attention(query, key, value).reshape(B, T, D)
        x = x + dense(D, "out")(y) * scale("scale1")
        y = ACTIVATIONS[self.activation](dense(self.mlp_width, "mlp_in")(norm("norm2")(x)))
        return x + dense(D, "mlp_out")(y) * scale("scale2")


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
        B, D = images.shape[0], self.width
        init = nn.initializers.normal(0.02)
        token = lambda name, *shape: self.param(name, init, (*shape, D)).astype(self.dtype)
        norm = lambda name: nn.LayerNorm(epsilon=self.norm_eps, dtype=self.dtype, name=name)
        patch = (self.patch_size, self.patch_size)

        patches = nn.Conv(D, patch, patch, "VALID", use_bias=self.patch_bias, dtype=self.dtype, name="patches")(images)
        first = jnp.broadcast_to(token("class_token"), (B, 1, D))
        x = jnp.concatenate([first, patches.reshape(B, -1, D)], axis=1)
        x = x + token("positions", 1 + (self.image_size // self.patch_size) ** 2)
        if self.num_registers:
            registers = jnp.broadcast_to(token("registers", self.num_registers), (B, self.num_registers, D))
            x = jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)
        if self.norm_in:
            x = norm("norm_in")(x)
        stack = nn.scan(
            lambda block, x, _: (block(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
        )
        sizes = (self.num_heads, self.mlp_width, self.activation, self.layer_scale, self.norm_eps, self.dtype)
        x, _ = stack(ViTBlock(*sizes, name="blocks"), x, None)
        x = x[:, 0]
        return (norm("norm_out")(x) if self.norm_out else x).astype(jnp.float32)


def clip_vit(width: int, depth: int, num_heads: int, patch_size: int, **fields) -> ViT:
    """CLIP's image tower; the class token before its final LayerNorm."""
    fields = {"mlp_width": 4 * width, "activation": "quick_gelu", "norm_eps": 1e-5} | fields
    return ViT(width, depth, num_heads, patch_size=patch_size, norm_in=True, **fields)


def dino_vit(width: int, depth: int, num_heads: int, patch_size: int = 14, **fields) -> ViT:
    """DINOv2; the class token after its final LayerNorm."""
    fields = {"mlp_width": 4 * width} | fields
    parts = {"patch_bias": True, "layer_scale": True, "norm_out": True}
    return ViT(width, depth, num_heads, patch_size=patch_size, **parts, **fields)


def preprocess(
    images: Float[Array, "B H W 3"], mean: tuple[float, ...], std: tuple[float, ...], size: int = 224
) -> Float[Array, "B {size} {size} 3"]:
    """What a teacher sees of images in [-1, 1]: nearest-neighbour resize (source index floor(i * in / out)),
    back to [0, 1], minus `mean` over `std`; float32.
    """
    rows, columns = (np.arange(size) * side // size for side in images.shape[1:3])
    images = (images[:, rows[:, None], columns].astype(jnp.float32) + 1) / 2
    return (images - jnp.array(mean)) / jnp.array(std)
