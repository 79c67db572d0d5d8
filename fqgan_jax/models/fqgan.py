"""FQGAN, the factorized tokenizer, for any number of sub-codebooks (paper section 3)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fqgan_jax.config.registry import Registry
from fqgan_jax.errors import check
from fqgan_jax.models.autoencoder import Decoder, Encoder
from fqgan_jax.models.blocks import Dtype
from fqgan_jax.models.feature_head import FeatureHead
from fqgan_jax.models.field_history import added_later
from fqgan_jax.models.heads import HeadSizes, heads
from fqgan_jax.models.quantizers import QuantizerOutput, QuantizerSizes, gradients, quantizers


@flax.struct.dataclass
class FQGANOutput:
    """Result of one training pass.

    Attributes:
      reconstruction: about [-1, 1], not clipped.
      quantizer: the quantizer's output.
      features: per sub-codebook the predicted feature of its teacher, None if it has no teacher.
    """

    reconstruction: Float[Array, "B H W 3"]
    quantizer: QuantizerOutput
    features: tuple[Float[Array, "B W"] | None, ...]


class FQGAN(nn.Module, kw_only=True):
    """Images in [-1, 1] to codes [h, w, K] and back.

    Attributes:
      num_codebooks: K.
      codebook_size: N.
      code_dim: d.
      grid: (h, w) of the training images, for which positions are learned.
      base_width, multipliers, num_blocks: the levels of encoder and decoder, see `Encoder`.
      norm_groups: number of groups of the group normalization.
      z_channels: width between the heads and the latents, and into the decoder.
      factorization: row of `heads`: "adapters" (one head per sub-codebook, the paper) or "split" (channels split).
      adapter_depth, adapter_heads: transformer of each adapter.
      feature_widths: per sub-codebook the width of the teacher's feature that it predicts, or None.
      feature_depth, feature_heads: transformer of each feature head.
      normalized, temperature, chunk_tokens: see `QuantizerSizes`.
      remat: what the backward pass recomputes: "none", "blocks" or "full" (levels, and blocks within them).
      unroll: whether transformer layers follow each other in the program instead of running in a loop.
      dtype: data type of the computation; parameters, normalization statistics, distances and images stay float32.
      quantizer: row of `quantizers`: "vq" (nearest entry of a learned codebook, the paper).
      levels: see `QuantizerSizes`.
      gradient: row of `gradients`: "straight_through" (the paper).
      nested: per sub-codebook the probability with which a training step leaves it out, rising from 0; then the first
        sub-codebooks decode without the others. Empty: all are always there (the paper).
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
    quantizer: str = added_later("vq")
    unroll: bool = added_later(default=False)
    levels: Sequence[int] = added_later(())
    gradient: str = added_later("straight_through")
    nested: Sequence[float] = added_later(())

    # Rows that fields name.
    tables: ClassVar[Mapping[str, Registry]] = {
        "factorization": heads,
        "quantizer": quantizers,
        "gradient": gradients,
    }

    def setup(self):
        """Builds encoder, heads, quantizer, feature heads and decoder."""
        self.encoder = Encoder(
            base_width=self.base_width,
            multipliers=self.multipliers,
            num_blocks=self.num_blocks,
            groups=self.norm_groups,
            remat=self.remat,
            dtype=self.dtype,
        )
        self.heads = heads[self.factorization](sizes=self.head_sizes())
        self._quantizer = quantizers[self.quantizer](sizes=self.quantizer_sizes(), name="quantizer")
        self.feature_predictors = [
            None if width is None else self._feature_head(width) for width in self.feature_widths
        ]
        self.from_codes = nn.Dense(self.z_channels, dtype=self.dtype)
        self.decoder = Decoder(
            base_width=self.base_width,
            multipliers=self.multipliers,
            num_blocks=self.num_blocks,
            groups=self.norm_groups,
            remat=self.remat,
            dtype=self.dtype,
        )

    @nn.nowrap
    def head_sizes(self) -> HeadSizes:
        """Returns the settings of the heads."""
        return HeadSizes(
            num_codebooks=self.num_codebooks,
            code_dim=self.code_dim,
            width=self.base_width * self.multipliers[-1],
            grid=self.grid,
            z_channels=self.z_channels,
            adapter_depth=self.adapter_depth,
            adapter_heads=self.adapter_heads,
            norm_groups=self.norm_groups,
            remat=self.remat,
            unroll=self.unroll,
            dtype=self.dtype,
        )

    @nn.nowrap
    def quantizer_sizes(self) -> QuantizerSizes:
        """Returns the settings of the quantizer."""
        return QuantizerSizes(
            num_codebooks=self.num_codebooks,
            codebook_size=self.codebook_size,
            code_dim=self.code_dim,
            levels=tuple(self.levels),
            gradient=self.gradient,
            normalized=self.normalized,
            temperature=self.temperature,
            chunk_tokens=self.chunk_tokens,
        )

    @nn.nowrap
    def _feature_head(self, width: int) -> FeatureHead:
        return FeatureHead(
            grid=self.grid,
            width=width,
            depth=self.feature_depth,
            num_heads=self.feature_heads,
            remat=self.remat,
            unroll=self.unroll,
            dtype=self.dtype,
        )

    def __call__(self, images: Float[Array, "B H W 3"]) -> FQGANOutput:
        """Computes the whole training pass, whose parts the training step calls one by one."""
        quantized = self.quantize(self.latents(images))
        reconstruction = self.to_pixels(self.decoder_features(quantized.quantized))
        features = self.predict_features(quantized.quantized)
        return FQGANOutput(reconstruction=reconstruction, quantizer=quantized, features=features)

    def encode(self, images: Float[Array, "B H W 3"]) -> Int[Array, "B h w K"]:
        """Encodes images in [-1, 1] to codes."""
        return self.latents_to_codes(self.latents(images))

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B H W 3"]:
        """Decodes codes to images (about [-1, 1], not clipped)."""
        return self.decode_quantized(self.codes_to_entries(codes))

    def latents(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w K d"]:
        """Computes the latents before quantization (and before normalization), float32.

        Raises:
          UserError: the head returns another shape.
        """
        features = self.encoder(images)
        latents = self.heads(features)
        expected = (*features.shape[:-1], self.num_codebooks, self.code_dim)
        check(
            latents.shape == expected,
            f"The head {self.factorization!r} returns latents {list(latents.shape)}: return [B, h, w, K, d], here "
            f"{list(expected)}.",
        )
        return latents.astype(jnp.float32)

    def quantize(self, latents: Float[Array, "B h w K d"]) -> QuantizerOutput:
        """Quantizes latents for training: codes, entries and the statistics of the losses."""
        return self._quantizer(latents)

    def all_entries(self) -> Float[Array, "K N d"]:
        """Returns the entries of a quantizer that has a table of them."""
        return self._quantizer.all_entries()

    def near_entries(
        self, key: Key[Array, ""], latents: Float[Array, "B h w K d"], *, nearest: int
    ) -> Float[Array, "B h w K d"]:
        """Draws entries near to latents; see `CodebookQuantizer.near_entries`."""
        return self._quantizer.near_entries(key, latents, nearest=nearest)

    def latents_to_codes(self, latents: Float[Array, "B h w K d"]) -> Int[Array, "B h w K"]:
        """Quantizes latents to codes alone."""
        return self._quantizer.encode(latents)

    def codes_to_entries(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B h w K d"]:
        """Looks up the entries of codes, the quantized latents."""
        return self._quantizer.decode(codes)

    def predict_features(self, quantized: Float[Array, "B h w K d"]) -> tuple[Float[Array, "B W"] | None, ...]:
        """Predicts the teacher's feature from each sub-codebook; None for those without a teacher."""
        return tuple(
            None if predictor is None else predictor(quantized[..., k, :])
            for k, predictor in enumerate(self.feature_predictors)
        )

    def decode_quantized(self, quantized: Float[Array, "B h w K d"]) -> Float[Array, "B H W 3"]:
        """Decodes the K quantized latents of each position to images."""
        return self.to_pixels(self.decoder_features(quantized))

    def decoder_features(self, quantized: Float[Array, "B h w K d"]) -> Float[Array, "B H W C"]:
        """Computes the input of the decoder's last convolution; quantized latents are joined in sub-codebook order."""
        joined = quantized.reshape(*quantized.shape[:-2], -1)
        return self.decoder(self.from_codes(joined))

    def to_pixels(self, features: Float[Array, "B H W C"]) -> Float[Array, "B H W 3"]:
        """Applies the decoder's last convolution."""
        return self.decoder.to_pixels(features)
