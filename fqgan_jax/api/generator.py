"""Trained generators: class labels to codes."""

import dataclasses
import operator
from collections.abc import Sequence
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from fqgan_jax.api.inputs import Codes, Labels, check_key, checked_codes, checked_labels
from fqgan_jax.api.model import Model, apply_method, wrappers
from fqgan_jax.api.tokenizer import Tokenizer
from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.errors import check
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.sampling import sample_codes, sampling_options


@wrappers("generator")
@dataclasses.dataclass(frozen=True)
class Generator(Model):
    """A trained generator.

    Labels are class numbers from 0. Every method raises `UserError` for other shapes, types and values, before it
    computes anything; see `api.inputs` for what these checks cost.

    Attributes:
      tokenizer: the fingerprint of the tokenizer whose codes it draws; "" if it is not known.
    """

    module: FAR
    tokenizer: str = dataclasses.field(default="", kw_only=True)

    overrides: ClassVar[tuple[str, ...]] = ("grid", "num_heads", "dropout", "dtype")

    @classmethod
    def from_description(cls, description: ModelDescription, params: PyTree) -> Self:
        """Builds the module of a description and wraps it."""
        model = super().from_description(description, params)
        return dataclasses.replace(model, tokenizer=description.tokenizer or "")

    @property
    def description(self) -> ModelDescription:
        """The description of the model for `model.json`; the inverse of `from_description`."""
        return dataclasses.replace(super().description, tokenizer=self.tokenizer)

    def logits(self, codes: Codes | Int[Array, "B T K"], labels: Labels) -> Float[Array, "B T K V"]:
        """Returns teacher-forced logits of the codes at every position.

        Args:
          codes: codes of whole images, `[B, h, w, K]` or `[B, T, K]` with T = h * w, on the generator's grid.
          labels: one class number per image.

        Raises:
          UserError: codes of another grid or another number of sub-codebooks, values out of range, or another number
            of labels.
        """
        (h, w), K = self.module.grid, self.module.num_codebooks
        codes = checked_codes(codes, num_codebooks=K, codebook_size=self.module.codebook_size)
        labels = checked_labels(labels, self.module.num_classes)
        check(
            codes.shape[1:-1] in ((h, w), (h * w,)),
            f"The generator's grid is {h} x {w}: codes must be [B, {h}, {w}, {K}] or [B, {h * w}, {K}], not "
            f"{list(codes.shape)}.",
        )
        check(len(codes) == len(labels), f"There are {len(labels)} labels for the codes of {len(codes)} images.")
        return apply_method(self.module, self.params, codes.reshape(-1, h * w, K), labels, method="__call__")

    def sample(
        self,
        labels: Labels,
        *,
        key: Key[Array, ""],
        guidance: float | Sequence[float] = 2.0,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | Sequence[int] = 0,
        top_p: float | Sequence[float] = 1.0,
        first: int = 0,
    ) -> Int[Array, "B h w K"]:
        """Draws the codes of one image per label.

        Sample i uses `fold_in(key, first + i)`, so that samples do not depend on the batch size.

        Args:
          labels: class numbers.
          key: random key of all samples.
          guidance: as in `models.sampling.SamplingOptions`, one value or one per sub-codebook; so are the next three.
          temperature: 0 chooses the most probable codes.
          top_k: 0 for all codes.
          top_p: 1 for all codes.
          first: the number of the first sample.

        Raises:
          UserError: an option out of range, or a label that is no class.
        """
        labels = checked_labels(labels, self.module.num_classes)
        check_key(key)
        options = sampling_options(
            self.module.num_codebooks, guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p
        )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(len(labels)))
        return sample_codes(self.module, self.params, keys=keys, labels=labels, options=options)

    def check_labels(self, labels: Labels) -> None:
        """Raises `UserError` if a label is no class."""
        checked_labels(labels, self.module.num_classes)

    def class_name(self, label: int) -> str:
        """Returns the name of a class, or its number if names are not known.

        Raises:
          UserError: the label is no class.
        """
        label = operator.index(label)
        self.check_labels([label])
        return self.class_names[label] if self.class_names else f"class {label}"

    def check_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """Returns the tokenizer that decodes this generator's codes: the given one, or its first sub-codebooks alone.

        Raises:
          UserError: this generator does not draw the codes of that tokenizer, as far as that is known.
        """
        check(
            isinstance(tokenizer, Tokenizer),
            f"A generator belongs to a Tokenizer (see load_tokenizer), not to a {type(tokenizer).__name__}.",
        )
        if tokenizer.module.nested and self.module.num_codebooks < tokenizer.module.num_codebooks:
            tokenizer = tokenizer.first(self.module.num_codebooks)
        check(
            self.tokenizer in ("", tokenizer.fingerprint),
            "The generator was trained on codes of another tokenizer: name the one that wrote its codes.",
        )
        drawn, read = _code_sizes(self.module), _code_sizes(tokenizer.module)
        check(
            drawn == read,
            f"The generator draws codes of {drawn}, the tokenizer reads {read}: name the tokenizer that belongs to it.",
        )
        return tokenizer


def _code_sizes(module: FAR | FQGAN) -> dict[str, int | tuple[int, int]]:
    return {name: getattr(module, name) for name in ("num_codebooks", "codebook_size", "grid")}
