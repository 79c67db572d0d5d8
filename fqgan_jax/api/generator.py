"""Trained generators: class labels to codes."""

import dataclasses
import operator
from collections.abc import Sequence
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree

from fqgan_jax.api.inputs import Codes, Labels, check_key, checked_codes, checked_labels
from fqgan_jax.api.model import Model, apply_method, wrappers
from fqgan_jax.api.tokenizer import Tokenizer
from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.errors import check
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.sampling import Known, sample_codes
from fqgan_jax.models.sampling_options import sampling_options


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
        min_p: float | Sequence[float] = 0.0,
        guidance_schedule: str | Sequence[str] = "constant",
        first: int = 0,
        known: Codes | Int[Array, "h w K"] | None = None,
        keep: Bool[np.ndarray, "*B h w"] | None = None,
    ) -> Int[Array, "B h w K"]:
        """Draws the codes of one image per label.

        Sample i uses `fold_in(key, first + i)`, so that samples do not depend on the batch size.

        Args:
          labels: class numbers.
          key: random key of all samples.
          guidance: as in `models.sampling_options.SamplingOptions`, one value or one per sub-codebook; as are the next
            five.
          temperature: 0 chooses the most probable codes.
          top_k: 0 for all codes.
          top_p: 1 for all codes.
          min_p: 0 for all codes.
          guidance_schedule: "constant", "power_cosine:P" or "interval:START-STOP", see `models.sampling_options`.
          first: the number of the first sample.
          known: codes of an image, or of one per sample, of which some positions are kept: to continue or change a
            picture. What is drawn depends on the positions before it, row by row.
          keep: which positions are kept, for all samples or for each.

        Raises:
          UserError: an option out of range, a label that is no class, or known codes that do not fit.
        """
        labels = checked_labels(labels, self.module.num_classes)
        check_key(key)
        check(0 <= first < 2**31, f"first is {first}: give a number from 0 to {2**31 - 1}.")
        options = sampling_options(
            self.module.num_codebooks,
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            guidance_schedule=guidance_schedule,
        )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(len(labels)))
        given = self._known(known, keep, num_samples=len(labels))
        return sample_codes(self.module, self.params, keys=keys, labels=labels, options=options, known=given)

    def _known(self, codes: Codes | None, keep: ArrayLike | None, *, num_samples: int) -> Known | None:
        """Returns the known codes of each sample."""
        check((codes is None) == (keep is None), "Give known codes together with keep, the positions to keep of them.")
        if codes is None:
            return None
        (h, w), K = self.module.grid, self.module.num_codebooks
        codes, keep = np.asarray(codes), np.asarray(keep)
        for name, array, shape in (("known", codes, (h, w, K)), ("keep", keep, (h, w))):
            check(
                array.shape in (shape, (num_samples, *shape)),
                f"{name} must be {list(shape)}, or {[num_samples, *shape]} for one each; it is {list(array.shape)}.",
            )
        check(keep.dtype == bool, f"keep must hold booleans, not {keep.dtype}.")
        # What is not kept may be anything, such as -1.
        kept = np.where(keep[..., None], codes, 0)
        given = checked_codes(kept, num_codebooks=K, codebook_size=self.module.codebook_size)
        return Known(
            codes=jnp.broadcast_to(given, (num_samples, h, w, K)), keep=jnp.broadcast_to(keep, (num_samples, h, w))
        )

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
