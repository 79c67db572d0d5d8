"""Prediction of a teacher's global feature from the codes of one semantic sub-codebook (paper section 3.2)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.models.blocks import Dtype, Transformer, resize_positions


class FeatureHead(nn.Module, kw_only=True):
    """Quantized latents to one feature vector, read from a learned class token.

    Attributes:
      grid: (h, w) for which positions are learned; other grids interpolate them (beyond the paper).
      width: width of the teacher's feature and of the transformer.
      depth: transformer blocks.
      num_heads: attention heads of each block.
      remat: "none"; or anything else, which makes the backward pass recompute the blocks.
      unroll: whether the blocks follow each other in the program instead of running in a loop.
      dtype: data type of the computation.
    """

    grid: tuple[int, int]
    width: int
    depth: int = 3
    num_heads: int = 8
    remat: str = "none"
    unroll: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, quantized: Float[Array, "B h w d"]) -> Float[Array, "B {self.width}"]:
        """Predicts the feature, float32."""
        B, h, w, d = quantized.shape
        x = nn.relu(nn.Dense(self.width, dtype=self.dtype, name="expand1")(quantized.reshape(B, h * w, d)))
        x = nn.Dense(self.width, dtype=self.dtype, name="expand2")(x)
        init = nn.initializers.normal(self.width**-0.5)
        class_token = self.param("class_token", init, (1, self.width))
        positions = self.param("positions", init, (1 + self.grid[0] * self.grid[1], self.width))
        grid_positions = resize_positions(positions[1:], self.grid, (h, w))
        class_token = jnp.broadcast_to(class_token + positions[:1], (B, 1, self.width)).astype(self.dtype)
        x = jnp.concatenate([class_token, x + grid_positions.astype(self.dtype)], axis=1)
        x = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_in")(x)
        x = Transformer(
            depth=self.depth,
            num_heads=self.num_heads,
            remat=self.remat,
            unroll=self.unroll,
            dtype=self.dtype,
            name="transformer",
        )(x)
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_out")(x)[:, 0].astype(jnp.float32)
