"""FAR, the factorized autoregressive transformer that generates codes (paper section 3.4).

A backbone runs over the h*w positions; a small head transformer predicts the K codes of a position in turn.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fqgan_jax.models.blocks import Dtype
from fqgan_jax.models.quantizers import lookup
from fqgan_jax.sharding.mesh import keep_batch_sharded

_INIT = nn.initializers.normal(0.02)

# What is kept of a block for the backward pass, beside its input: products with weights (not those within attention).
_KEPT = {"blocks": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


def rotary_table(grid: tuple[int, int], head_width: int, base: float = 10000.0) -> Float[Array, "T1 pairs 2"]:
    """Cosines and sines per position: half the rotation pairs turn with the row, half with the column.

    Row 0 belongs to the class token and is all zeros, cosines too, as in the published checkpoints: there query and
    key vanish. Row 1 + i is position i, row by row. (Su et al. 2021, in two dimensions.)
    """
    frequencies = base ** (-jnp.arange(0, head_width // 2, 2) / (head_width // 2))
    rows, columns = jnp.meshgrid(jnp.arange(grid[0]), jnp.arange(grid[1]), indexing="ij")
    angles = jnp.concatenate([rows[..., None] * frequencies, columns[..., None] * frequencies], axis=-1)
    table = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1).reshape(grid[0] * grid[1], -1, 2)
    return jnp.concatenate([jnp.zeros_like(table[:1]), table])


def rotate(x: Float[Array, "B T H c"], table: Float[Array, "T pairs 2"]) -> Float[Array, "B T H c"]:
    """Rotates interleaved pairs of channels by the table's angles."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    cos, sin = table[:, None, :, 0], table[:, None, :, 1]
    even, odd = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


def swiglu_width(width: int, multiple: int) -> int:
    """Hidden width of SwiGLU: two thirds of four times the width, rounded up to a multiple."""
    hidden = int(2 * 4 * width / 3)
    return -(-hidden // multiple) * multiple


@flax.struct.dataclass
class Cache:
    """Keys and values of past positions, stacked over layers, and how many are filled."""

    keys: Float[Array, "L B T H c"]
    values: Float[Array, "L B T H c"]
    length: Int[Array, ""]

    def put(self, layer: Int[Array, ""], keys: Float[Array, "B 1 H c"], values: Float[Array, "B 1 H c"]) -> "Cache":
        """With a layer's keys and values of the next position, written in place."""
        write = lambda stacked, new: jax.lax.dynamic_update_slice(
            stacked, new[None].astype(stacked.dtype), (layer, 0, self.length, 0, 0)
        )
        return self.replace(keys=write(self.keys, keys), values=write(self.values, values))


class FARBlock(nn.Module):
    """x + Attention(RMSNorm x), then x + SwiGLU(RMSNorm x); causal, rotary positions, no biases."""

    num_heads: int
    swiglu_multiple: int
    dropout: float
    dtype: Dtype = jnp.float32

    def setup(self):
        self.drop = nn.Dropout(self.dropout)

    @nn.compact
    def __call__(
        self, carry: tuple[Float[Array, "B T D"], Cache | None], layer: Int[Array, ""], table: Array, train: bool
    ) -> tuple[tuple[Float[Array, "B T D"], Cache | None], None]:
        """With a cache, x holds the one position that follows it; without, all positions from 0."""
        x, cache = carry
        dense = lambda width, name: nn.Dense(width, use_bias=False, kernel_init=_INIT, dtype=self.dtype, name=name)
        norm = lambda name: nn.RMSNorm(epsilon=1e-5, dtype=self.dtype, name=name)
        B, T, D = x.shape
        qkv = dense(3 * D, "qkv")(norm("attention_norm")(x)).reshape(B, T, 3, self.num_heads, D // self.num_heads)
        query, key, value = rotate(qkv[:, :, 0], table), rotate(qkv[:, :, 1], table), qkv[:, :, 2]
        if cache is None:
            y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        else:
            # All layers' caches are carried: handed over layer by layer, each would be copied at every position.
            cache = cache.put(layer, key, value)
            keys, values = (stacked[layer].astype(query.dtype) for stacked in (cache.keys, cache.values))
            past: Bool[Array, "1 1 1 T"] = (jnp.arange(keys.shape[1]) <= cache.length)[None, None, None]
            y = jax.nn.dot_product_attention(query, keys, values, mask=past)
        x = x + self.drop(dense(D, "out")(y.reshape(B, T, D)), deterministic=not train)
        y = norm("mlp_norm")(x)
        hidden = swiglu_width(D, self.swiglu_multiple)
        y = nn.swish(dense(hidden, "gate")(y)) * dense(hidden, "up")(y)
        return (x + self.drop(dense(D, "down")(y), deterministic=not train), cache), None


class FARLayers(nn.Module):
    """Blocks with parameters stacked over depth, compiled once."""

    depth: int
    num_heads: int
    swiglu_multiple: int
    dropout: float
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], cache: Cache | None, table: Array, train: bool = False):
        """All positions without a cache, or the next one with it; returns the outputs and the new cache."""
        block = FARBlock
        if self.remat != "none" and cache is None:
            # Inside a scan nothing is merged with the forward pass anyway; `train` is Python's.
            block = nn.remat(FARBlock, prevent_cse=False, static_argnums=(4,), policy=_KEPT[self.remat])
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.depth,
        )
        blocks = stack(self.num_heads, self.swiglu_multiple, self.dropout, self.dtype, name="blocks")
        (x, cache), _ = blocks((keep_batch_sharded(x), cache), jnp.arange(self.depth), table, train)
        return keep_batch_sharded(x), cache and cache.replace(length=cache.length + 1)

    def empty_cache(self, batch_size: int, length: int, width: int) -> Cache:
        """A cache with room for `length` positions, in the compute dtype."""
        shape = (self.depth, batch_size, length, self.num_heads, width // self.num_heads)
        return Cache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype), jnp.int32(0))


class FAR(nn.Module):
    """Logits of K codes at each of h*w positions, given the class and all earlier codes.

    Attributes:
      num_codebooks, codebook_size: K and N.
      num_classes: C; row C of the class table is the null class of classifier-free guidance.
      grid: (h, w).
      width, depth, num_heads, head_depth: backbone and head transformer (both of the same width and heads).
      dropout: on input tokens, attention and MLP outputs.
      swiglu_multiple: the SwiGLU's hidden width is rounded up to it.
      remat: what the backward pass computes again: "none", "blocks" (all but products with weights) or "full" (all but
        the blocks' inputs).
      dtype: of the computation; parameters and logits stay float32.
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

    def setup(self):
        K, N, D = self.num_codebooks, self.codebook_size, self.width
        self.class_table = self.param("class_table", _INIT, (self.num_classes + 1, D))
        self.code_tables = self.param("code_tables", _INIT, (K, N, D))
        self.aggregate = nn.Dense(D, kernel_init=_INIT, dtype=self.dtype)
        layers = (self.num_heads, self.swiglu_multiple, self.dropout, self.remat, self.dtype)
        self.backbone = FARLayers(self.depth, *layers)
        self.head = FARLayers(self.head_depth, *layers)
        self.norm = nn.RMSNorm(epsilon=1e-5, dtype=self.dtype)
        self.outputs = self.param("outputs", nn.initializers.zeros_init(), (K, D, N))
        self.input_dropout = nn.Dropout(self.dropout)

    def _table(self) -> Float[Array, "T1 pairs 2"]:
        return rotary_table(self.grid, self.width // self.num_heads)

    def embed(self, codes: Int[Array, "*s K"]) -> Float[Array, "*s K D"]:
        """Each code's embedding from its sub-codebook's table."""
        return lookup(self.code_tables.astype(self.dtype), codes)

    def __call__(
        self, codes: Int[Array, "B T K"], labels: Int[Array, " B"], *, train: bool = False
    ) -> Float[Array, "B T K N"]:
        """Teacher-forced logits of all positions, float32; dropout (rng "dropout") where `train` is set."""
        B, T, K = codes.shape
        embedded = self.embed(codes)
        inputs = self.aggregate(embedded[:, :-1].reshape(B, T - 1, -1))
        x = jnp.concatenate([self.class_table[labels][:, None].astype(self.dtype), inputs], axis=1)
        x = self.input_dropout(x, deterministic=not train)
        table = self._table()
        hidden, _ = self.backbone(x, None, table[:T], train)
        sequence = jnp.concatenate([hidden[:, :, None], embedded[:, :, :-1]], axis=2).reshape(B * T, K, -1)
        hidden, _ = self.head(sequence, None, table[:K], train)
        hidden = self.norm(hidden).reshape(B, T, K, -1)
        # The einsum "btkd,kdn->btkn" says the same, but XLA on CPUs cannot run what it becomes in bfloat16.
        matmul = partial(jnp.matmul, preferred_element_type=jnp.float32)
        return jax.vmap(matmul, (2, 0), 2)(hidden, self.outputs.astype(self.dtype))

    def next_position(
        self,
        cache: Cache,
        previous: Int[Array, "B K"],
        labels: Int[Array, " B"],
        choose: Callable[[Float[Array, "B N"], Int[Array, ""]], Int[Array, " B"]],
    ) -> tuple[Cache, Int[Array, "B K"], Float[Array, "B K N"]]:
        """One position with cached keys and values: runs the backbone once, then chooses the K codes in turn.

        `previous` are the codes of the position before (ignored at the first, where the class token enters);
        `choose(logits, k)` picks the codes of sub-codebook k. Returns the new cache, the codes and their logits.
        """
        B, K = previous.shape
        from_codes = self.aggregate(self.embed(previous).reshape(B, -1))
        from_class = self.class_table[labels].astype(self.dtype)
        x = jnp.where(cache.length == 0, from_class, from_codes)
        table = self._table()
        row = jax.lax.dynamic_slice_in_dim(table, cache.length, 1)
        hidden, cache = self.backbone(x[:, None], cache, row)

        def predict_code(module, carry, k):
            x, head_cache = carry
            row = jax.lax.dynamic_slice_in_dim(table, k, 1)
            hidden, head_cache = module.head(x, head_cache, row)
            output = module.outputs[k].astype(self.dtype)
            logits = jnp.matmul(module.norm(hidden[:, 0]), output, preferred_element_type=jnp.float32)
            code = choose(logits, k)
            embedded = module.code_tables[k].astype(self.dtype)[code]
            return (embedded[:, None], head_cache), (code, logits)

        substeps = nn.scan(predict_code, variable_broadcast="params", split_rngs={"params": False})
        _, (codes, logits) = substeps(self, (hidden, self.head_cache(B)), jnp.arange(K))
        return cache, codes.T, logits.swapaxes(0, 1)

    def backbone_cache(self, batch_size: int) -> Cache:
        """An empty cache for all positions."""
        return self.backbone.empty_cache(batch_size, self.grid[0] * self.grid[1], self.width)

    def head_cache(self, batch_size: int) -> Cache:
        """An empty cache for the K codes of one position."""
        return self.head.empty_cache(batch_size, self.num_codebooks, self.width)
