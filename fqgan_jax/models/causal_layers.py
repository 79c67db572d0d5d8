"""Causal transformer layers of FAR, for whole sequences and, with caches, for one position at a time."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.models.attention import attention
from fqgan_jax.models.blocks import Dtype
from fqgan_jax.models.dropout import Dropout
from fqgan_jax.models.products import two_products
from fqgan_jax.sharding.mesh import keep_batch_sharded

INIT = nn.initializers.normal(0.02)

# Stored for a block's backward pass, besides its input: products with weights (not those of attention).
_KEPT = {"blocks": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


def rotary_table(grid: tuple[int, int], head_width: int, *, base: float = 10000.0) -> Float[Array, "T1 pairs 2"]:
    """Computes cosines and sines per position: half the pairs turn with the row, half with the column.

    Row 0 belongs to the class token and is all zeros, cosines too, as in the published checkpoints: there query and
    key vanish. Row 1 + i is position i, row by row. (Su et al. 2021, in two dimensions.)
    """
    frequencies = base ** (-jnp.arange(0, head_width // 2, 2) / (head_width // 2))
    rows, columns = jnp.meshgrid(jnp.arange(grid[0]), jnp.arange(grid[1]), indexing="ij")
    angles = jnp.concatenate([rows[..., None] * frequencies, columns[..., None] * frequencies], axis=-1)
    table = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1).reshape(grid[0] * grid[1], -1, 2)
    return jnp.concatenate([jnp.zeros_like(table[:1]), table])


def rotate(x: Float[Array, "B T H c"], table: Float[Array, "*b T pairs 2"]) -> Float[Array, "B T H c"]:
    """Rotates interleaved pairs of channels by the table's angles."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    cos, sin = table[..., None, :, 0], table[..., None, :, 1]
    even, odd = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


def swiglu_width(width: int, multiple: int) -> int:
    """Returns SwiGLU's hidden width: two thirds of four times the width, rounded up to a multiple."""
    hidden = int(2 * 4 * width / 3)
    return -(-hidden // multiple) * multiple


@flax.struct.dataclass
class Cache:
    """A layer's keys and values of past positions, and room for more."""

    keys: Float[Array, "B H T c"]
    values: Float[Array, "B H T c"]

    def put(self, t: Int[Array, ""], keys: Float[Array, "B 1 H c"], values: Float[Array, "B 1 H c"]) -> "Cache":
        """Writes keys and values of position t, in place."""

        def write(cached, new):
            return jax.lax.dynamic_update_slice_in_dim(cached, new.swapaxes(1, 2), t, axis=2)

        return Cache(write(self.keys, keys), write(self.values, values))

    def attend(self, t: Int[Array, ""], query: Float[Array, "B 1 H c"]) -> Float[Array, "B 1 H c"]:
        """Lets position t attend to all positions up to itself."""
        keys, values = self.keys.swapaxes(1, 2), self.values.swapaxes(1, 2)
        past = (jnp.arange(keys.shape[1]) <= t)[None, None, None]
        return jax.nn.dot_product_attention(query, keys, values, mask=past)

    def resized(self, length: int) -> "Cache":
        """Returns the cache with room for more positions."""
        more = ((0, 0), (0, 0), (0, length - self.keys.shape[2]), (0, 0))
        return Cache(jnp.pad(self.keys, more), jnp.pad(self.values, more))


class Kernel(nn.Module):
    """The kernel of a `flax.linen.Dense` without bias, by itself."""

    @nn.compact
    def __call__(self, width: int, hidden: int) -> Float[Array, "width hidden"]:
        """Returns the kernel, float32."""
        return self.param("kernel", INIT, (width, hidden))


class FARBlock(nn.Module, kw_only=True):
    """x + Attention(RMSNorm x), then x + SwiGLU(RMSNorm x); causal, rotary positions, no biases.

    Attributes:
      num_heads: attention heads.
      swiglu_multiple: the hidden width of SwiGLU is rounded up to it.
      dropout: rate on the outputs of attention and MLP.
      train: whether dropout acts.
      joined: whether gate and up are one matrix, "gate_up".
      dtype: data type of the computation.
    """

    num_heads: int
    swiglu_multiple: int
    dropout: float
    train: bool
    joined: bool = False
    dtype: Dtype = jnp.float32

    def setup(self):
        """Builds the dropout that both outputs share."""
        self.drop = Dropout(self.dropout)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        table: Float[Array, "*b T pairs 2"],
        *,
        cache: Cache | None = None,
        position: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Applies the block to a sequence; or to the one position that a cache lacks.

        Args:
          x: the sequence, or the position.
          table: its rotations, rows of `rotary_table`, for all sequences or for each.
          cache: keys and values of the positions before.
          position: number of the position.

        Returns:
          The output, and the cache with the position (None without a cache).
        """
        B, T, D = x.shape
        qkv = self._dense(3 * D, "qkv")(self._norm("attention_norm")(x))
        qkv = qkv.reshape(B, T, 3, self.num_heads, D // self.num_heads)
        query, key, value = rotate(qkv[:, :, 0], table), rotate(qkv[:, :, 1], table), qkv[:, :, 2]
        if cache is None:
            y = attention(query, key, value, causal=True)
        else:
            assert position is not None
            cache = cache.put(position, key, value)
            y = cache.attend(position, query)
        x = x + self.drop(self._dense(D, "out")(y.reshape(B, T, D)), train=self.train)
        y = self._norm("mlp_norm")(x)
        gate, up = self._gate_and_up(y, swiglu_width(D, self.swiglu_multiple))
        y = nn.swish(gate) * up
        return x + self.drop(self._dense(D, "down")(y), train=self.train), cache

    @nn.nowrap
    def _gate_and_up(self, y: Float[Array, "B T D"], hidden: int) -> tuple[Array, Array]:
        """The two products of SwiGLU with the same input."""
        if self.joined:
            gate, up = jnp.split(self._dense(2 * hidden, "gate_up")(y), 2, axis=-1)
            return gate, up
        kernels = [Kernel(name=name)(y.shape[-1], hidden).astype(self.dtype) for name in ("gate", "up")]
        return two_products(y, *kernels)

    @nn.nowrap
    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, use_bias=False, kernel_init=INIT, dtype=self.dtype, name=name)

    @nn.nowrap
    def _norm(self, name: str) -> nn.RMSNorm:
        return nn.RMSNorm(epsilon=1e-5, dtype=self.dtype, name=name)


class FARLayers(nn.Module, kw_only=True):
    """Blocks whose parameters are stacked over depth, compiled once unless `unroll` is set.

    Attributes:
      depth: number of blocks.
      num_heads, swiglu_multiple, dropout: see `FARBlock`.
      remat, unroll: see `FAR`.
      dtype: data type of the computation.
    """

    depth: int
    num_heads: int
    swiglu_multiple: int
    dropout: float
    remat: str = "none"
    unroll: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], table: Float[Array, "*b T pairs 2"], *, train: bool = False
    ) -> Float[Array, "B T D"]:
        """Applies all layers to a sequence."""
        block = FARBlock
        if self.remat != "none":
            # Inside a scan nothing is merged with the forward pass anyway.
            block = nn.remat(FARBlock, prevent_cse=self.unroll, policy=_KEPT[self.remat])
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.depth,
            unroll=self.depth if self.unroll else 1,
        )
        blocks = stack(
            num_heads=self.num_heads,
            swiglu_multiple=self.swiglu_multiple,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
            name="blocks",
        )
        x, _ = blocks(keep_batch_sharded(x), table)
        return keep_batch_sharded(x)
