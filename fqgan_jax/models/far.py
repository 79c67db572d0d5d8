"""FAR, the factorized autoregressive transformer that generates codes (paper section 3.4).

A backbone runs over the h*w positions; a small head transformer predicts the K codes of a position in turn.
`models.predictions` has other ways to predict them.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.config.registry import Registry
from fqgan_jax.models.blocks import Dtype
from fqgan_jax.models.causal_layers import INIT, FARLayers, rotary_table
from fqgan_jax.models.dropout import Dropout
from fqgan_jax.models.field_history import added_later
from fqgan_jax.models.predictions import predictions
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
      prediction: row of `predictions`: how the K codes of a position are predicted.
      target_positions: whether each token knows the position that it predicts, by a learned embedding; positions may
        then come in any order (Yu et al. 2024, arXiv 2411.00776).
      entry_dim: width of the entries whose projections embed the codes; 0: tables of embeddings.
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
    prediction: str = added_later(default="transformer")
    target_positions: bool = added_later(default=False)
    entry_dim: int = added_later(default=0)

    tables: ClassVar[Mapping[str, Registry]] = {"prediction": predictions}

    def setup(self):
        """Builds tables, backbone, head transformer and output matrices."""
        K, N, D = self.num_codebooks, self.codebook_size, self.width
        self.class_table = self.param("class_table", INIT, (self.num_classes + 1, D))
        if self.entry_dim:
            self.code_entries = self.param("code_entries", nn.initializers.normal(1.0), (K, N, self.entry_dim))
            self.code_projection = self.param("code_projection", INIT, (K, self.entry_dim, D))
        else:
            self.code_tables = self.param("code_tables", INIT, (K, N, D))
        if self.target_positions:
            self.target_table = self.param("target_table", INIT, (self.grid[0] * self.grid[1], D))
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
        if predictions[self.prediction].has_head:
            self.head = layers(depth=self.head_depth)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=self.dtype)
        self.outputs = self.param("outputs", nn.initializers.zeros_init(), (K, D, N))
        self.input_dropout = Dropout(self.dropout)

    def __call__(
        self,
        codes: Int[Array, "B T K"],
        labels: Int[Array, " B"],
        *,
        order: Int[Array, "B T"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B T K N"]:
        """Computes teacher-forced logits of all positions.

        Args:
          codes: in [0, N), in the order of the positions.
          labels: in [0, C]; C is the null class.
          order: the position of each place in the sequence; None: row by row. Others need `target_positions`.
          train: whether dropout acts, with the random stream "dropout".

        Returns:
          Logits in the same order, float32.
        """
        prediction = predictions[self.prediction]
        embedded = self.embed(codes)
        inputs = self.aggregate(prediction.tokens(embedded))
        x = jnp.concatenate([self.class_table[labels][:, None].astype(self.dtype), inputs], axis=1)
        table = self.rotary_table()
        first, rest = table[:1], table[1:]
        if order is not None:
            first, rest = jnp.broadcast_to(first, (len(codes), *first.shape)), rest[order]
        if self.target_positions:
            targets = self.target_table.astype(self.dtype)
            x = x + prediction.spread(targets if order is None else targets[order], self.num_codebooks)
        x = self.input_dropout(x, train=train)
        # A token turns with the position that it stands for, which is the one before the position that it predicts.
        rest = prediction.spread(rest.reshape(*rest.shape[:-2], -1), self.num_codebooks)
        table = jnp.concatenate([first, rest.reshape(*rest.shape[:-1], *table.shape[1:])], axis=-3)
        hidden = self.backbone(x, table[..., : x.shape[1], :, :], train=train)
        hidden = self.norm(prediction.hidden(self, hidden, embedded, train=train))
        return jax.vmap(float32_product, (2, 0), 2)(hidden, self.outputs.astype(self.dtype))

    def embed(self, codes: Int[Array, "*s K"]) -> Float[Array, "*s K D"]:
        """Looks up the embedding of each code in the table of its sub-codebook."""
        if not self.entry_dim:
            return lookup(self.code_tables.astype(self.dtype), codes)
        entries = lookup(self.code_entries.astype(self.dtype), codes)
        return jnp.einsum("...kd,kde->...ke", entries, self.code_projection.astype(self.dtype))

    def embed_one(self, codes: Int[Array, " B"], k: int) -> Float[Array, "B D"]:
        """Looks up the embeddings of codes of sub-codebook k."""
        if not self.entry_dim:
            return self.code_tables[k][codes]
        return self.code_entries[k][codes] @ self.code_projection[k]

    def rotary_table(self) -> Float[Array, "T1 pairs 2"]:
        """Computes the rotations of all positions, and before them of the class token."""
        return rotary_table(self.grid, self.width // self.num_heads)
