"""FAR, one position at a time: its weights laid out for a loop, and caches of keys and values.

A loop that took each layer's weights out of stacked arrays would copy them at every position, because the library calls
of CPUs and GPUs read whole arrays only.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.models.causal_layers import Cache, FARBlock
from fqgan_jax.models.far import FAR
from fqgan_jax.models.products import float32_product


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepwiseFAR:
    """FAR for a loop over positions.

    Attributes:
      far: bound to its parameters, in the compute dtype.
      backbone, head: parameters of each layer, gate and up as one matrix, matrices transposed.
      outputs: output matrix of each sub-codebook, transposed.
    """

    far: FAR
    backbone: Sequence[PyTree]
    head: Sequence[PyTree]
    outputs: Sequence[Float[Array, "N D"]]

    @classmethod
    def from_params(cls, module: FAR, params: PyTree) -> "StepwiseFAR":
        """Lays out a generator's parameters; outside the loop, so that it happens once."""
        params = _in_compute_dtype(params, module.dtype)
        return cls(
            far=module.bind({"params": params}),
            backbone=_unstacked(params["backbone"]["blocks"], module.depth),
            head=_unstacked(params["head"]["blocks"], module.head_depth),
            outputs=list(params["outputs"].mT),
        )

    def empty_caches(self, batch_size: int, length: int) -> list[Cache]:
        """Returns caches of the backbone's layers with room for `length` positions."""
        return self._empty_caches(len(self.backbone), batch_size, length)

    def next_position(
        self,
        caches: Sequence[Cache],
        previous: Int[Array, "B K"],
        *,
        t: Int[Array, ""],
        labels: Int[Array, " B"],
        choose: Callable[[Float[Array, "B N"], int], Int[Array, " B"]],
    ) -> tuple[list[Cache], Int[Array, "B K"], Float[Array, "B K N"]]:
        """Generates position t: runs the backbone once, then chooses the K codes in turn.

        Args:
          caches: of the positions before, from `empty_caches`.
          previous: codes of the position before; ignored at position 0, which takes the class token.
          t: number of the position.
          labels: in [0, C].
          choose: `choose(logits, k)` returns the codes of sub-codebook k.

        Returns:
          The new caches, the codes and their logits (float32).
        """
        far, (B, K) = self.far, previous.shape
        from_codes = far.aggregate(far.embed(previous).reshape(B, -1))
        x = jnp.where(t == 0, far.class_table[labels], from_codes)
        x, caches = self._apply(self.backbone, x[:, None], caches, t=t)

        head_caches = self._empty_caches(len(self.head), B, K)
        codes, logits = [], []
        for k, output in enumerate(self.outputs):
            hidden, head_caches = self._apply(self.head, x, head_caches, t=k)
            logits.append(float32_product(far.norm(hidden[:, 0]), output.T))
            codes.append(choose(logits[-1], k))
            x = far.code_tables[k][codes[-1]][:, None]
        return caches, jnp.stack(codes, axis=1), jnp.stack(logits, axis=1)

    def _apply(
        self, layers: Sequence[PyTree], x: Float[Array, "B 1 D"], caches: Sequence[Cache], *, t: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], list[Cache]]:
        far, new_caches = self.far, []
        block = FARBlock(
            num_heads=far.num_heads,
            swiglu_multiple=far.swiglu_multiple,
            dropout=0.0,
            train=False,
            joined=True,
            dtype=far.dtype,
        )
        row = jax.lax.dynamic_slice_in_dim(far.rotary_table(), t, 1)
        for params, cache in zip(layers, caches, strict=True):
            x, cache = _apply_block(block, params, x, table=row, cache=cache, position=t)
            new_caches.append(cache)
        return x, new_caches

    def _empty_caches(self, depth: int, batch_size: int, length: int) -> list[Cache]:
        far = self.far
        zeros = jnp.zeros((batch_size, far.num_heads, length, far.width // far.num_heads), far.dtype)
        return [Cache(zeros, zeros)] * depth


@partial(jax.jit, static_argnums=0)  # traced once for all layers
def _apply_block(block: FARBlock, params: PyTree, x: Array, **position: Any) -> tuple[Array, Cache]:
    x, cache = block.apply({"params": _transposed(params)}, x, **position)
    # Rounded between layers, as in the loop over layers of training.
    return jax.lax.optimization_barrier(x), cache


def _in_compute_dtype(params: PyTree, dtype: jnp.dtype) -> PyTree:
    """Converts weights once and not at every position; scales of norms are used in float32."""

    def convert(path, leaf):
        return leaf if path[-1].key == "scale" else leaf.astype(dtype)

    return jax.tree.map_with_path(convert, params)


def _unstacked(blocks: PyTree, depth: int) -> list[PyTree]:
    """Returns the parameters of each block, those of gate and up as one matrix."""
    gate, up = (blocks[name]["kernel"] for name in ("gate", "up"))
    rest = {name: block for name, block in blocks.items() if name not in ("gate", "up")}

    def layer(i: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[i], rest) | {"gate_up": {"kernel": jnp.hstack([gate[i], up[i]])}}

    return [_transposed(layer(i)) for i in range(depth)]


def _transposed(params: PyTree) -> PyTree:
    """Transposes matrices: CPUs multiply a few rows by a matrix faster if each column is in one piece."""
    return jax.tree.map(jnp.transpose, params)
