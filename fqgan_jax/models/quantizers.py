"""Quantizers: K independent codebooks, one array [K, N, d] (paper section 3.1).

`quantizers` is the table that the config field `model.quantizer` chooses from. A quantizer of your own is a subclass of
`Quantizer` under the decorator `@quantizers("name")`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.config.registry import Registry
from fqgan_jax.models.distances import l2_normalize, lookup, nearest_codes, soft_assignment


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerSizes:
    """Settings of a quantizer; a quantizer may ignore some of them.

    Attributes:
      num_codebooks: K.
      codebook_size: N, entries per sub-codebook.
      code_dim: d.
      normalized: compare unit vectors (the paper) instead of plain ones.
      temperature: temperature of the soft assignment behind the entropy loss.
      chunk_tokens: tokens of the whole batch whose distances are in memory at a time.
    """

    num_codebooks: int
    codebook_size: int
    code_dim: int
    normalized: bool = True
    temperature: float = 0.01
    chunk_tokens: int = 4096


@partial(flax.struct.dataclass, kw_only=True)
class QuantizerOutput:
    """Quantized latents of a batch; all float32, codes int32.

    Attributes:
      quantized: the entries, with the straight-through gradient to the latents.
      codes: index of the chosen entry, in [0, N).
      latents: the latents that were compared (normalized if the quantizer normalizes).
      entries: the same values as `quantized`, with the gradient to the codebooks.
      token_entropy: mean over tokens of the entropy of each token's soft assignment, in nats; None if the quantizer has
        no soft assignment, and then the entropy loss is zero.
      mean_probability: the soft assignment averaged over tokens; None if there is none.
    """

    quantized: Float[Array, "B h w K d"]
    codes: Int[Array, "B h w K"]
    latents: Float[Array, "B h w K d"]
    entries: Float[Array, "B h w K d"]
    token_entropy: Float[Array, " K"] | None = None
    mean_probability: Float[Array, "K N"] | None = None


class Quantizer(nn.Module, kw_only=True):
    """Base class of quantizers: latents to codes and back."""

    sizes: QuantizerSizes

    def __call__(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Quantizes for training."""
        raise NotImplementedError

    def encode(self, latents: Float[Array, "B h w K d"]) -> Int[Array, "B h w K"]:
        """Computes the codes alone; the same as those of `__call__`."""
        raise NotImplementedError

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B h w K d"]:
        """Looks up the entries of codes; the values of `QuantizerOutput.quantized`."""
        raise NotImplementedError


quantizers: Registry[type[Quantizer]] = Registry("quantizer")


@quantizers("vq")
class FactorizedQuantizer(Quantizer):
    """Nearest entry of each of K learned codebooks, all at once, with a straight-through gradient; float32."""

    def setup(self):
        """Draws the entries from uniform(-1/N, 1/N), then normalizes them."""
        sizes = self.sizes
        shape = (sizes.num_codebooks, sizes.codebook_size, sizes.code_dim)
        self.codebooks = self.param("codebooks", _initial_entries(sizes), shape)

    def __call__(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Quantizes for training: codes, entries and the statistics of the soft assignment."""
        z, codebooks = self._comparable(latents), self._comparable(self.codebooks)
        B, h, w, K, d = z.shape
        codes, token_entropy, mean_probability = soft_assignment(
            z.reshape(B, h * w, K, d),
            codebooks,
            temperature=self.sizes.temperature,
            chunk_tokens=self.sizes.chunk_tokens,
        )
        codes = codes.reshape(B, h, w, K)
        entries = lookup(codebooks, codes)
        return QuantizerOutput(
            quantized=z + jax.lax.stop_gradient(entries - z),
            codes=codes,
            latents=z,
            entries=entries,
            token_entropy=token_entropy,
            mean_probability=mean_probability,
        )

    def encode(self, latents: Float[Array, "B h w K d"]) -> Int[Array, "B h w K"]:
        """Computes the codes alone."""
        z, codebooks = self._comparable(latents), self._comparable(self.codebooks)
        B, h, w, K, d = z.shape
        codes = nearest_codes(z.reshape(B, h * w, K, d), codebooks, chunk_tokens=self.sizes.chunk_tokens)
        return codes.reshape(B, h, w, K)

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B h w K d"]:
        """Looks up the entries of codes."""
        return lookup(self._comparable(self.codebooks), codes)

    def _comparable(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        x = x.astype(jnp.float32)
        return l2_normalize(x) if self.sizes.normalized else x


def _initial_entries(sizes: QuantizerSizes) -> Callable[[Array, tuple[int, ...]], Array]:
    bound = 1 / sizes.codebook_size

    def init(key, shape):
        entries = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        return l2_normalize(entries) if sizes.normalized else entries

    return init
