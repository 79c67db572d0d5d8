"""What all quantizers share: settings, output, base class, and the table of their rows (paper section 3.1)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import flax.struct
from jaxtyping import Array, Float, Int

from fqgan_jax.config.registry import Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerSizes:
    """Settings of a quantizer; a quantizer may ignore some of them.

    Attributes:
      num_codebooks: K.
      codebook_size: N, entries per sub-codebook.
      code_dim: d.
      levels: number of levels of each of the d dimensions, whose product is N; empty: equal numbers.
      gradient: row of `gradients`: how gradients pass from the entries to the latents.
      normalized: compare unit vectors (the paper) instead of plain ones.
      temperature: temperature of the soft assignment behind the entropy loss.
      chunk_tokens: tokens of the whole batch whose distances are in memory at a time.
    """

    num_codebooks: int
    codebook_size: int
    code_dim: int
    levels: tuple[int, ...] = ()
    gradient: str = "straight_through"
    normalized: bool = True
    temperature: float = 0.01
    chunk_tokens: int = 4096


@flax.struct.dataclass(kw_only=True)
class QuantizerOutput:
    """Quantized latents of a batch; all float32, codes int32.

    Attributes:
      quantized: the entries, with a gradient to the latents.
      codes: index of the chosen entry, in [0, N).
      latents: the latents that were compared (normalized if the quantizer normalizes).
      entries: the same values as `quantized`, with the gradient to the codebooks; None if the quantizer has no
        codebook and commitment losses.
      soft_entries: the same values once more, with the gradient of a soft choice among all entries, to the latents and
        to the codebooks; None if the quantizer has none.
      token_entropy: mean over tokens of the entropy of each token's soft assignment, in nats; None if the quantizer has
        no soft assignment, and then there is no entropy loss.
      mean_probability: the soft assignment averaged over tokens: a distribution over the N entries, or one over the
        values of each group of independent dimensions; None if there is none.
    """

    quantized: Float[Array, "B h w K d"]
    codes: Int[Array, "B h w K"]
    latents: Float[Array, "B h w K d"]
    entries: Float[Array, "B h w K d"] | None = None
    soft_entries: Float[Array, "B h w K d"] | None = None
    token_entropy: Float[Array, " K"] | None = None
    mean_probability: Float[Array, "K *groups N"] | None = None


class Quantizer(nn.Module, kw_only=True):
    """Base class of quantizers: latents to codes and back.

    Attributes:
      fixed: names of parameters that no optimizer changes.
    """

    sizes: QuantizerSizes

    fixed: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def check_sizes(sizes: QuantizerSizes) -> None:
        """Raises `UserError` if a quantizer of these sizes cannot work; no size is refused by default."""

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
