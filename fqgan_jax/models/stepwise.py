"""FAR, one step at a time: its weights laid out for a loop, and caches of keys and values.

A loop that took each layer's weights out of stacked arrays would copy them at every step, because the library calls
of CPUs and GPUs read whole arrays only.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from fqgan_jax.models.applying import apply
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
            head=_unstacked(params["head"]["blocks"], module.head_depth) if "head" in params else (),
            outputs=list(params["outputs"].mT),
        )

    def empty_caches(self, batch_size: int, length: int) -> list[Cache]:
        """Returns caches of the backbone's layers with room for `length` tokens."""
        return self._empty_caches(len(self.backbone), batch_size, length)

    def head_caches(self, batch_size: int, length: int) -> list[Cache]:
        """Returns caches of the head's layers with room for `length` tokens."""
        return self._empty_caches(len(self.head), batch_size, length)

    def token(
        self, embedded: Float[Array, "B W"], *, labels: Int[Array, " B"], first: Bool[Array, ""], target: Int[Array, ""]
    ) -> Float[Array, "B 1 D"]:
        """Returns the backbone's next token: the class if it is the first, else the embedded codes.

        Args:
          embedded: embeddings of the codes that the token stands for, side by side.
          labels: in [0, C].
          first: whether it is the first token.
          target: the position that it predicts.
        """
        x = jnp.where(first, self.far.class_table[labels], self.far.aggregate(embedded))
        return (x + self.far.target_table[target] if self.far.target_positions else x)[:, None]

    def run_backbone(
        self, x: Float[Array, "B 1 D"], caches: Sequence[Cache], *, index: Int[Array, ""], row: Int[Array, ""]
    ) -> tuple[Float[Array, "B 1 D"], list[Cache]]:
        """Runs the backbone on token number `index`, turned by a row of the rotary table."""
        return self._apply(self.backbone, x, caches, index=index, row=row)

    def run_head(
        self, x: Float[Array, "B 1 D"], caches: Sequence[Cache], *, index: int
    ) -> tuple[Float[Array, "B 1 D"], list[Cache]]:
        """Runs the head transformer on token number `index` of a position."""
        return self._apply(self.head, x, caches, index=index, row=index)

    def logits(self, hidden: Float[Array, "B 1 D"], k: int) -> Float[Array, "B N"]:
        """Returns the logits of sub-codebook k, float32."""
        return float32_product(self.far.norm(hidden[:, 0]), self.outputs[k].T)

    def _apply(
        self,
        layers: Sequence[PyTree],
        x: Float[Array, "B 1 D"],
        caches: Sequence[Cache],
        *,
        index: int | Int[Array, ""],
        row: int | Int[Array, ""],
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
        table = jax.lax.dynamic_slice_in_dim(far.rotary_table(), row, 1)
        for params, cache in zip(layers, caches, strict=True):
            x, cache = _apply_block(block, params, x, table=table, cache=cache, position=index)
            new_caches.append(cache)
        return x, new_caches

    def _empty_caches(self, depth: int, batch_size: int, length: int) -> list[Cache]:
        far = self.far
        zeros = jnp.zeros((batch_size, far.num_heads, length, far.width // far.num_heads), far.dtype)
        return [Cache(zeros, zeros)] * depth


@partial(jax.jit, static_argnums=0)  # traced once for all layers
def _apply_block(block: FARBlock, params: PyTree, x: Array, **place: Any) -> tuple[Array, Cache]:
    x, cache = apply(block, _transposed(params), x, **place)
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
