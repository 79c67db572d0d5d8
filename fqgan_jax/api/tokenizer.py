"""Trained tokenizers: images to codes and back."""

import dataclasses
from functools import cached_property
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fqgan_jax.api.inputs import Codes, Images, checked_codes, checked_images
from fqgan_jax.api.model import Model, apply_method, wrappers
from fqgan_jax.checkpoints import fingerprint
from fqgan_jax.errors import check
from fqgan_jax.models.fields import downsampling, identifying_fields
from fqgan_jax.models.fqgan import FQGAN


@wrappers("tokenizer")
@dataclasses.dataclass(frozen=True)
class Tokenizer(Model):
    """A trained tokenizer.

    Images are uint8 in [0, 255] or floats in [-1, 1], of any size that f divides; they need not have the size of the
    images in training. Every method raises `UserError` for other shapes, types and values, before it computes
    anything; see `api.inputs` for what these checks cost.
    """

    module: FQGAN

    overrides: ClassVar[tuple[str, ...]] = (
        *("grid", "adapter_heads", "feature_heads", "normalized", "norm_groups"),
        *("temperature", "chunk_tokens", "dtype"),
    )

    def encode(self, images: Images) -> Int[Array, "B h w K"]:
        """Returns the codes of images."""
        return self._apply("encode", checked_images(images, self.downsampling))

    def latents(self, images: Images) -> Float[Array, "B h w K d"]:
        """Returns the latents of images before quantization."""
        return self._apply("latents", checked_images(images, self.downsampling))

    def decode(self, codes: Codes) -> Float[Array, "B H W 3"]:
        """Returns the images of codes, clipped to [-1, 1]; the grid need not be the one of training."""
        codes = checked_codes(codes, num_codebooks=self.module.num_codebooks, codebook_size=self.module.codebook_size)
        check(
            codes.ndim == 4 and min(codes.shape[1:3]) > 0,
            f"Codes must be [B, h, w, {self.module.num_codebooks}], not {list(codes.shape)}.",
        )
        return jnp.clip(self._apply("decode", codes), -1, 1)

    @property
    def downsampling(self) -> int:
        """f: the image's side over the grid's."""
        return downsampling(self.module.multipliers)

    @property
    def image_size(self) -> int:
        """Side of the images it was trained on."""
        return self.module.grid[0] * self.downsampling

    @cached_property
    def fingerprint(self) -> str:
        """A hash of sizes and parameters; code caches record it."""
        return fingerprint(identifying_fields(self.module), self.params)

    def _apply(self, method: str, inputs: Array) -> Array:
        return apply_method(self.module, self.params, inputs, method=method)
