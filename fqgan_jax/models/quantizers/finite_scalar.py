"""Finite scalar quantization: each dimension is bounded and rounded to a few levels; there is no codebook."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fqgan_jax.errors import check
from fqgan_jax.models.quantizers.gradients import gradients
from fqgan_jax.models.quantizers.quantizer import Quantizer, QuantizerOutput, QuantizerSizes, quantizers

_MARGIN = 1e-3  # by which the bounds exceed the outermost levels


@quantizers("fsq")
class FSQ(Quantizer):
    """Rounds dimension i to L_i levels in [-1, 1]; N is their product (Mentzer et al. 2023, arXiv 2309.15505).

    There are no codebook, commitment and entropy losses. A code counts the levels with the first dimension as its
    lowest digit.
    """

    @staticmethod
    def check_sizes(sizes: QuantizerSizes) -> None:
        """Raises `UserError` unless there are d levels whose product is N."""
        N, d = sizes.codebook_size, sizes.code_dim
        levels = levels_of(sizes)
        check(
            sizes.gradient == "straight_through",
            f'model.quantizer="fsq" rounds with a straight-through gradient: leave out '
            f"model.gradient={sizes.gradient!r}.",
        )
        check(
            len(levels) == d and all(level > 1 for level in levels) and math.prod(levels) == N,
            f"Finite scalar quantization needs model.code_dim={d} numbers of levels, each at least 2, whose product is "
            f"model.codebook_size={N}; model.levels={tuple(sizes.levels)} "
            + (f"has the product {math.prod(levels)}." if sizes.levels else "leaves no equal numbers that do it."),
        )

    def __call__(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Quantizes for training."""
        bounded = self._bounded(latents)
        entries = jnp.round(bounded) / self._half
        return QuantizerOutput(
            quantized=gradients["straight_through"](bounded / self._half, entries),
            codes=self.encode(latents),
            latents=bounded / self._half,
        )

    def encode(self, latents: Float[Array, "B h w K d"]) -> Int[Array, "B h w K"]:
        """Computes the codes alone."""
        digits = jnp.round(self._bounded(latents)) + self._half
        return jnp.sum(digits.astype(jnp.int32) * self._place_values, axis=-1)

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B h w K d"]:
        """Returns the entries of codes."""
        digits = codes[..., None] // self._place_values % np.asarray(levels_of(self.sizes), np.int32)
        return (digits - self._half).astype(jnp.float32) / self._half

    def _bounded(self, latents: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        """Bounds each dimension so that rounding gives L_i whole numbers; half a level lower for even L_i."""
        levels = np.asarray(levels_of(self.sizes))
        bound = (levels - 1) * (1 + _MARGIN) / 2
        offset = np.where(levels % 2, 0.0, 0.5)
        shift = np.arctanh(offset / bound).astype(np.float32)
        tanh = jnp.tanh(latents.astype(jnp.float32) + shift)
        return tanh * bound.astype(np.float32) - offset.astype(np.float32)

    @property
    def _half(self) -> Int[np.ndarray, " d"]:
        return np.asarray(levels_of(self.sizes), np.int32) // 2

    @property
    def _place_values(self) -> Int[np.ndarray, " d"]:
        levels = levels_of(self.sizes)
        return np.cumprod([1, *levels[:-1]]).astype(np.int32)


def levels_of(sizes: QuantizerSizes) -> tuple[int, ...]:
    """Returns the number of levels of each dimension: those that are given, else d equal ones nearest to N."""
    if sizes.levels:
        return tuple(sizes.levels)
    return (round(sizes.codebook_size ** (1 / sizes.code_dim)),) * sizes.code_dim
