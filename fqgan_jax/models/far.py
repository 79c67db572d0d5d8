"""FAR, the factorized autoregressive transformer that generates codes (paper section 3.4).

A backbone runs over the h*w positions; a small head transformer predicts the K codes of a position in turn.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.models.blocks import Dtype
from fqgan_jax.models.causal_layers import INIT, FARLayers, rotary_table
from fqgan_jax.models.dropout import Dropout
from fqgan_jax.models.field_history import added_later
from fqgan_jax.models.products import float32_product
from fqgan_jax.models.quantizers.distances import lookup


class FAR(nn.Module, kw_only=True):
    """Logits of K codes at each of h*w positions, given the class and all earlier codes.

    Attributes:
      num_codebooks: K.
      codebook_size: N.
      num_classes: C; row C of the class table is the null class of classifier-free guidance.
      grid: (h, w).
      width: D, of backbone and head transformer.
      depth: blocks of the backbone.
      num_heads: attention heads, of backbone and head transformer.
      head_depth: blocks of the head transformer.
      dropout: rate on input tokens and on the outputs of attention and MLP.
      swiglu_multiple: the hidden width of SwiGLU is rounded up to it.
      remat: what the backward pass recomputes: "none", "blocks" (all but products with weights) or "full" (all but the
        blocks' inputs).
      unroll: whether layers follow each other in the program instead of running in a loop.
      dtype: data type of the computation; parameters and logits stay float32.
    """

    num_codebooks: int
    codebook_size: int
    num_classes: int
    grid: tuple[int, int]
    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    head_depth: int = 3
    dropout: float = 0.1
    swiglu_multiple: int = 256
    remat: str = "none"
    dtype: Dtype = jnp.float32
    unroll: bool = added_later(default=False)

    def setup(self):
        """Builds tables, backbone, head transformer and output matrices."""
        K, N, D = self.num_codebooks, self.codebook_size, self.width
        self.class_table = self.param("class_table", INIT, (self.num_classes + 1, D))
        self.code_tables = self.param("code_tables", INIT, (K, N, D))
        self.aggregate = nn.Dense(D, kernel_init=INIT, dtype=self.dtype)
        layers = partial(
            FARLayers,
            num_heads=self.num_heads,
            swiglu_multiple=self.swiglu_multiple,
            dropout=self.dropout,
            remat=self.remat,
            unroll=self.unroll,
            dtype=self.dtype,
        )
        self.backbone = layers(depth=self.depth)
        self.head = layers(depth=self.head_depth)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=self.dtype)
        self.outputs = self.param("outputs", nn.initializers.zeros_init(), (K, D, N))
        self.input_dropout = Dropout(self.dropout)

    def __call__(
        self, codes: Int[Array, "B T K"], labels: Int[Array, " B"], *, train: bool = False
    ) -> Float[Array, "B T K N"]:
        """Computes teacher-forced logits of all positions.

        Args:
          codes: in [0, N), positions row by row.
          labels: in [0, C]; C is the null class.
          train: whether dropout acts, with the random stream "dropout".

        Returns:
          Logits, float32.
        """
        B, T, K = codes.shape
        embedded = self.embed(codes)
        inputs = self.aggregate(embedded[:, :-1].reshape(B, T - 1, -1))
        x = jnp.concatenate([self.class_table[labels][:, None].astype(self.dtype), inputs], axis=1)
        x = self.input_dropout(x, train=train)
        table = self.rotary_table()
        hidden = self.backbone(x, table[:T], train=train)
        sequence = jnp.concatenate([hidden[:, :, None], embedded[:, :, :-1]], axis=2).reshape(B * T, K, -1)
        hidden = self.head(sequence, table[:K], train=train)
        hidden = self.norm(hidden).reshape(B, T, K, -1)
        return jax.vmap(float32_product, (2, 0), 2)(hidden, self.outputs.astype(self.dtype))

    def embed(self, codes: Int[Array, "*s K"]) -> Float[Array, "*s K D"]:
        """Looks up the embedding of each code in the table of its sub-codebook."""
        return lookup(self.code_tables.astype(self.dtype), codes)

    def rotary_table(self) -> Float[Array, "T1 pairs 2"]:
        """Computes the rotations of all positions, and before them of the class token."""
        return rotary_table(self.grid, self.width // self.num_heads)
