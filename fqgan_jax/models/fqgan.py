"""The factorized tokenizer, for any number of sub-codebooks (paper section 3)."""

from collections.abc import Sequence

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.models.autoencoder import Decoder, Encoder
from fqgan_jax.models.blocks import Dtype
from fqgan_jax.models.feature_head import FeatureHead
from fqgan_jax.models.heads import AdapterHeads, SplitHead
from fqgan_jax.models.quantizers import FactorizedQuantizer, QuantizerOutput


@flax.struct.dataclass
class FQGANOutput:
    """One training pass: images in [-1, 1], the quantizer's output, the feature each head predicts."""

    reconstruction: Float[Array, "B H W 3"]
    quantizer: QuantizerOutput
    features: tuple[Float[Array, "B W"] | None, ...]


class FQGAN(nn.Module):
    """Images in [-1, 1] to `[h, w, K]` codes and back.

    Attributes:
      num_codebooks, codebook_size, code_dim: K, N and d.
      grid: (h, w) of the training images, for which positions are learned.
      base_width, multipliers, num_blocks: the encoder's and decoder's levels.
      norm_groups: of the group normalization.
      z_channels: width between the encoder's heads and the latents, and into the decoder.
      factorization: "adapters" (a head per sub-codebook, the paper) or "split" (channels split K ways).
      adapter_depth, adapter_heads: transformer of each adapter.
      feature_widths: per sub-codebook the width of the teacher's feature it predicts, or None.
      feature_depth, feature_heads: transformer of each feature head.
      normalized, temperature, chunk_tokens: see `FactorizedQuantizer`.
      remat: what the backward pass computes again: "none", "blocks" or "full" (levels, and blocks within them).
      dtype: of the computation; parameters, normalization statistics, distances and images stay float32.
    """

    num_codebooks: int
    codebook_size: int
    code_dim: int
    grid: tuple[int, int]
    base_width: int = 128
    multipliers: Sequence[int] = (1, 1, 2, 2, 4)
    num_blocks: int = 2
    norm_groups: int = 32
    z_channels: int = 256
    factorization: str = "adapters"
    adapter_depth: int = 6
    adapter_heads: int = 8
    feature_widths: Sequence[int | None] = ()
    feature_depth: int = 3
    feature_heads: int = 8
    normalized: bool = True
    temperature: float = 0.01
    chunk_tokens: int = 4096
    remat: str = "none"
    dtype: Dtype = jnp.float32

    def setup(self):
        levels = (self.base_width, self.multipliers, self.num_blocks, self.norm_groups, self.remat, self.dtype)
        self.encoder = Encoder(*levels)
        if self.factorization == "adapters":
            self.heads = AdapterHeads(
                self.num_codebooks,
                self.grid,
                self.z_channels,
                self.code_dim,
                self.adapter_depth,
                self.adapter_heads,
                self.norm_groups,
                self.remat,
                self.dtype,
            )
        else:
            self.heads = SplitHead(self.num_codebooks, self.code_dim, self.norm_groups, self.dtype)
        self.quantizer = FactorizedQuantizer(
            self.num_codebooks,
            self.codebook_size,
            self.code_dim,
            self.normalized,
            self.temperature,
            self.chunk_tokens,
        )
        self.feature_predictors = [
            width and FeatureHead(self.grid, width, self.feature_depth, self.feature_heads, self.remat, self.dtype)
            for width in self.feature_widths
        ]
        self.from_codes = nn.Dense(self.z_channels, dtype=self.dtype)
        self.decoder = Decoder(*levels)

    def __call__(self, images: Float[Array, "B H W 3"]) -> FQGANOutput:
        """The whole training pass, whose parts the training step calls one by one."""
        quantized = self.quantize(self.latents(images))
        reconstruction = self.to_pixels(self.decoder_features(quantized.quantized))
        return FQGANOutput(reconstruction, quantized, self.predict_features(quantized.quantized))

    def quantize(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Codes, entries and the statistics of the losses."""
        return self.quantizer(latents)

    def predict_features(self, quantized: Float[Array, "B h w K d"]) -> tuple[Float[Array, "B W"] | None, ...]:
        """Per sub-codebook the teacher's feature as its codes tell it, None where it has no teacher."""
        return tuple(predict and predict(quantized[..., k, :]) for k, predict in enumerate(self.feature_predictors))

    def latents(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w K d"]:
        """Latents before quantization (and before normalization), float32."""
        return self.heads(self.encoder(images)).astype(jnp.float32)

    def encode(self, images: Float[Array, "B H W 3"]) -> Int[Array, "B h w K"]:
        """Codes of images in [-1, 1]."""
        return self.quantizer.encode(self.latents(images))

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B H W 3"]:
        """Images (about [-1, 1], not clipped) of codes."""
        return self.decode_quantized(self.quantizer.decode(codes))

    def decode_quantized(self, quantized: Float[Array, "B h w K d"]) -> Float[Array, "B H W 3"]:
        """Images of the K quantized latents of each position."""
        return self.to_pixels(self.decoder_features(quantized))

    def decoder_features(self, quantized: Float[Array, "B h w K d"]) -> Float[Array, "B H W C"]:
        """What enters the decoder's last convolution; quantized latents are joined in sub-codebook order."""
        joined = quantized.reshape(*quantized.shape[:-2], -1)
        return self.decoder(self.from_codes(joined))

    def to_pixels(self, features: Float[Array, "B H W C"]) -> Float[Array, "B H W 3"]:
        """The decoder's last convolution."""
        return self.decoder.to_pixels(features)
