"""Trained models as Python objects: `load_tokenizer` and `load_generator`."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8

from fqgan_jax.checkpoints import (
    CheckpointName,
    ModelDescription,
    fingerprint,
    is_export_folder,
    load_inference_params,
    read_description,
    read_export,
    write_export,
)
from fqgan_jax.data.pixels import to_float
from fqgan_jax.errors import UserError
from fqgan_jax.interop.checkpoint_files import is_checkpoint_file
from fqgan_jax.interop.published import load_published
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import build_module, downsampling, module_fields
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.sampling import sample_codes, sampling_options

Images = UInt8[np.ndarray, "B H W 3"] | Float[np.ndarray, "B H W 3"] | Float[Array, "B H W 3"]


@partial(jax.jit, static_argnums=(0, 1))
def _apply(module: nn.Module, method: str, params: PyTree, *arguments: Array) -> Array:
    return module.apply({"params": params}, *arguments, method=method)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A trained tokenizer. Images are uint8 [0, 255] or float [-1, 1], of any size that f divides."""

    module: FQGAN
    params: PyTree
    class_names: Sequence[str] = ()

    def encode(self, images: Images) -> Int[Array, "B h w K"]:
        """Codes of images."""
        return _apply(self.module, "encode", self.params, self._prepared(images))

    def latents(self, images: Images) -> Float[Array, "B h w K d"]:
        """Latents before quantization."""
        return _apply(self.module, "latents", self.params, self._prepared(images))

    def decode(self, codes: Int[Array, "B h w K"]) -> Float[Array, "B H W 3"]:
        """Images of codes, clipped to [-1, 1]."""
        return jnp.clip(_apply(self.module, "decode", self.params, jnp.asarray(codes)), -1, 1)

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
        return fingerprint(module_fields(self.module), self.params)

    def save(self, folder: str | Path) -> None:
        """Writes a native export folder."""
        fields, names = module_fields(self.module), tuple(self.class_names)
        write_export(Path(folder), ModelDescription(kind="tokenizer", fields=fields, class_names=names), self.params)

    def _prepared(self, images: Images) -> Float[Array, "B H W 3"]:
        f = self.downsampling
        if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] % f or images.shape[2] % f:
            raise UserError(f"Images must be [B, H, W, 3] with H and W divisible by {f}, not {list(images.shape)}.")
        images = jnp.asarray(images)
        return to_float(images) if images.dtype == jnp.uint8 else images


@dataclasses.dataclass(frozen=True)
class Generator:
    """A trained generator. `tokenizer` is the fingerprint of the tokenizer whose codes it draws."""

    module: FAR
    params: PyTree
    class_names: Sequence[str] = ()
    tokenizer: str = ""

    def logits(self, codes: Int[Array, "B h w K"], labels: Int[Array, " B"]) -> Float[Array, "B T K V"]:
        """Teacher-forced logits of every position's codes; codes as `[B, h, w, K]` or `[B, T, K]`."""
        codes = jnp.asarray(codes)
        codes = codes.reshape(len(codes), -1, codes.shape[-1])
        return _apply(self.module, "__call__", self.params, codes, jnp.asarray(labels))

    def sample(
        self,
        labels: Int[Array, " B"],
        *,
        key: Key[Array, ""],
        guidance: float | Sequence[float] = 2.0,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | Sequence[int] = 0,
        top_p: float | Sequence[float] = 1.0,
        first: int = 0,
    ) -> Int[Array, "B h w K"]:
        """Draws one sample per label. Sample i uses `fold_in(key, first + i)`, so batches of any size agree.

        Each option is one value or one per sub-codebook; see `SamplingOptions`.

        Raises:
          UserError: an option out of range, or a label that is no class.
        """
        labels = np.asarray(labels, np.int32)
        self.check_labels(labels)
        options = sampling_options(
            self.module.num_codebooks, guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p
        )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(len(labels)))
        return sample_codes(self.module, self.params, keys=keys, labels=jnp.asarray(labels), options=options)

    def check_labels(self, labels: Int[np.ndarray, " B"]) -> None:
        """Raises `UserError` where a label is no class."""
        if labels.size and not (labels.min() >= 0 and labels.max() < self.module.num_classes):
            raise UserError(
                f"Labels must lie between 0 and {self.module.num_classes - 1}; these are {labels.tolist()}."
            )

    def class_name(self, label: int) -> str:
        """The class's name, or its number where names are not known."""
        return self.class_names[label] if self.class_names else f"class {label}"

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises `UserError` where this generator does not draw the codes of a tokenizer, as far as can be known."""
        if self.tokenizer and self.tokenizer != tokenizer.fingerprint:
            raise UserError(
                "The generator was trained on codes of another tokenizer: name the one that wrote its codes."
            )
        sizes = lambda module: {name: getattr(module, name) for name in ("num_codebooks", "codebook_size", "grid")}
        if sizes(self.module) != sizes(tokenizer.module):
            raise UserError(
                f"The generator draws codes of {sizes(self.module)}, the tokenizer reads {sizes(tokenizer.module)}: "
                "name the tokenizer that belongs to it."
            )

    def save(self, folder: str | Path) -> None:
        """Writes a native export folder."""
        description = ModelDescription(
            kind="generator",
            fields=module_fields(self.module),
            class_names=tuple(self.class_names),
            tokenizer=self.tokenizer,
        )
        write_export(Path(folder), description, self.params)


# What tensors' shapes do not tell, and what does not touch the parameters: settable when a model is loaded.
TOKENIZER_OVERRIDES = (
    *("grid", "adapter_heads", "feature_heads", "normalized", "norm_groups"),
    *("temperature", "chunk_tokens", "dtype"),
)
GENERATOR_OVERRIDES = ("grid", "num_heads", "dropout", "dtype")


def load_tokenizer(path: str | Path, **overrides) -> Tokenizer:
    """Loads a tokenizer from a work folder, a native export folder or a published checkpoint file.

    Args:
      path: a work folder of `fqgan train` (its newest checkpoint; `WORKDIR@best`, `WORKDIR@5000` for another), an
        export folder, or a `.safetensors` or PyTorch file with the published names; sizes are read from the tensors'
        shapes, its moving average is preferred.
      **overrides: `TOKENIZER_OVERRIDES`. A file takes the published value for each that is not given: the square grid
        of the learned positions, 8 adapter_heads, 8 feature_heads, normalized codes, 32 norm_groups, float32.

    Raises:
      UserError: no tokenizer there, a damaged file, tensors that do not fit.
    """
    description, params = _load(Path(path), "tokenizer", overrides)
    return Tokenizer(build_module("tokenizer", description.fields), params, description.class_names)


def load_generator(path: str | Path, **overrides) -> Generator:
    """Loads a generator from a work folder, a native export folder or a published checkpoint file.

    Args:
      path: as in `load_tokenizer`.
      **overrides: `GENERATOR_OVERRIDES`. A file takes the published value for each that is not given: grid (16, 16),
        16 num_heads at width 1024 and 20 at width 1280, dropout 0.1, float32.

    Raises:
      UserError: no generator there, a damaged file, tensors that do not fit.
    """
    description, params = _load(Path(path), "generator", overrides)
    module = build_module("generator", description.fields)
    return Generator(module, params, description.class_names, description.tokenizer or "")


def _load(path: Path, kind: str, overrides: dict) -> tuple[ModelDescription, PyTree]:
    known = TOKENIZER_OVERRIDES if kind == "tokenizer" else GENERATOR_OVERRIDES
    for name in overrides.keys() - set(known):
        raise UserError(f"A {kind} is not loaded with {name!r}: only {', '.join(known)} can be given.")
    folder = CheckpointName.parse(path).workdir
    if not folder.exists():
        raise UserError(
            f"There is no checkpoint {path}: give a work folder of fqgan train, an export folder or a checkpoint file."
        )
    if is_checkpoint_file(path):
        content, params = load_published(path, kind, overrides)
        description = ModelDescription.from_json({"kind": kind} | content)
    else:
        description = read_description(folder)
        if description.kind != kind:
            raise UserError(f"{folder} holds a {description.kind}, but a {kind} is needed here.")
        description = dataclasses.replace(description, fields=description.fields | overrides)
        params = read_export(path) if is_export_folder(path) else load_inference_params(path)[0]
    return description, jax.tree.map(jnp.asarray, params)
