"""Trained tokenizers: images to codes and back."""

import dataclasses
from functools import cached_property
from typing import ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fqgan_jax.api.inputs import Codes, Images, checked_codes, checked_images
from fqgan_jax.api.model import Model, apply_method, wrappers
from fqgan_jax.checkpoints import fingerprint
from fqgan_jax.data.transforms import Size
from fqgan_jax.errors import check
from fqgan_jax.models.fields import downsampling, identifying_fields
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.prefix import first_codebooks, first_params


@wrappers("tokenizer")
@dataclasses.dataclass(frozen=True)
class Tokenizer(Model):
    """A trained tokenizer.

    Images are uint8 in [0, 255] or floats in [-1, 1], of any size that f divides; they need not have the size of the
    images in training. Every method raises `UserError` for other shapes, types and values, before it computes
    anything; see `api.inputs` for what these checks cost.

    After nested training (`model.nested`) the first sub-codebooks encode and decode without the others.
    """

    module: FQGAN
    _prefixes: dict[int, Self] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    overrides: ClassVar[tuple[str, ...]] = (
        *("grid", "adapter_heads", "feature_heads", "normalized", "norm_groups"),
        *("temperature", "chunk_tokens", "dtype"),
    )

    def encode(self, images: Images, *, codebooks: int | None = None) -> Int[Array, "B h w K"]:
        """Returns the codes of images, of the first `codebooks` sub-codebooks or of all."""
        tokenizer = self.first(codebooks)
        return tokenizer._apply("encode", checked_images(images, self.downsampling))

    def latents(self, images: Images) -> Float[Array, "B h w K d"]:
        """Returns the latents of images before quantization."""
        return self._apply("latents", checked_images(images, self.downsampling))

    def decode(self, codes: Codes) -> Float[Array, "B H W 3"]:
        """Returns the images of codes, clipped to [-1, 1]; the grid need not be the one of training.

        After nested training codes of the first sub-codebooks, `codes[..., :k]`, will do.
        """
        if self.module.nested and np.ndim(codes) == 4 and 0 < np.shape(codes)[-1] < self.module.num_codebooks:
            return self.first(np.shape(codes)[-1]).decode(codes)
        codes = checked_codes(codes, num_codebooks=self.module.num_codebooks, codebook_size=self.module.codebook_size)
        check(
            codes.ndim == 4 and min(codes.shape[1:3]) > 0,
            f"Codes must be [B, h, w, {self.module.num_codebooks}], not {list(codes.shape)}.",
        )
        return jnp.clip(self._apply("decode", codes), -1, 1)

    def first(self, codebooks: int | None) -> Self:
        """Returns the tokenizer of the first sub-codebooks alone, or this one for all of them or None.

        Raises:
          UserError: there are not so many, or training was not nested.
        """
        K = self.module.num_codebooks
        if codebooks in (None, K):
            return self
        check(
            isinstance(codebooks, int | np.integer) and 1 <= codebooks < K,
            f"The tokenizer has {K} sub-codebooks: {codebooks!r} of them cannot be taken.",
        )
        check(
            bool(self.module.nested),
            f"The first {codebooks} of this tokenizer's {K} sub-codebooks do not decode on their own: train it with "
            "model.nested.",
        )
        if codebooks not in self._prefixes:
            module = first_codebooks(self.module, int(codebooks))
            params = first_params(module, self.params)
            self._prefixes[codebooks] = dataclasses.replace(self, module=module, params=params)
        return self._prefixes[codebooks]

    @property
    def downsampling(self) -> int:
        """f: the image's side over the grid's."""
        return downsampling(self.module.multipliers)

    @property
    def image_size(self) -> Size:
        """Side of the images it was trained on, or (height, width) if they were no squares."""
        height, width = (side * self.downsampling for side in self.module.grid)
        return height if height == width else (height, width)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of sizes and parameters; code caches record it."""
        return fingerprint(identifying_fields(self.module), self.params)

    def _apply(self, method: str, inputs: Array) -> Array:
        return apply_method(self.module, self.params, inputs, method=method)
