"""Export folders: a tokenizer or generator in the format of another framework, with a README that loads it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import PyTree

from fqgan_jax.api import Generator, Tokenizer, load_generator, load_tokenizer
from fqgan_jax.checkpoints import (
    CheckpointName,
    has_average,
    load_discriminator_params,
    load_params_and_average,
    read_description,
)
from fqgan_jax.config import from_json
from fqgan_jax.errors import UserError, import_extra
from fqgan_jax.export.readme import readme
from fqgan_jax.files import whole_folder
from fqgan_jax.interop import export_discriminator, export_params
from fqgan_jax.interop.checkpoint_files import METADATA, read_checkpoint_file
from fqgan_jax.models.fields import module_fields
from fqgan_jax.training.from_config import build_discriminator

# Name of a set of tensors in a published file ("model", "ema") to its tensors by name.
TensorSets = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Export:
    """What an export writes.

    Attributes:
      sets: the model's parameters by their names in a published file.
      discriminator: its published tensors, where it was asked for.
    """

    model: Tokenizer | Generator
    sets: Mapping[str, PyTree]
    discriminator: Mapping[str, np.ndarray] | None
    batch_size: int

    @property
    def description(self) -> dict[str, Any]:
        """What the model is, as `model.json` has it; tensor files carry it, so that fqgan_jax reads them back."""
        kind, tokenizer = ("generator", self.model.tokenizer) if _is_generator(self.model) else ("tokenizer", "")
        names = list(self.model.class_names)
        return {"kind": kind, "fields": module_fields(self.model.module), "class_names": names, "tokenizer": tokenizer}

    def published(self) -> TensorSets:
        """The sets with published names and layouts."""
        sets = {name: export_params(params, self.model.module) for name, params in self.sets.items()}
        return sets if self.discriminator is None else sets | {"discriminator": self.discriminator}


def export_checkpoint(
    checkpoint: Path,
    format: str,
    out: Path,
    *,
    with_ema: bool = False,
    with_discriminator: bool = False,
    batch_size: int = 1,
) -> list[str]:
    """Writes the folder `out`, whole or not at all, and returns its file names.

    Args:
      checkpoint: work folder, export folder or published file of a tokenizer or a generator.
      format: one of `FORMATS`.
      with_ema: parameters as they are trained and their moving average, as two sets ("torch" and "safetensors");
        otherwise the moving average alone, where one was kept.
      with_discriminator: the discriminator too, as a set of its own ("torch" and "safetensors").
      batch_size: of the ONNX models.

    Raises:
      UserError: no model there, a format that does not suit it, a missing extra, or `out` exists.
    """
    for flag, wanted in (("--with-ema", with_ema), ("--with-discriminator", with_discriminator)):
        if wanted and format not in ("torch", "safetensors"):
            raise UserError(f"{flag} is for the formats torch and safetensors: {format} holds one set of parameters.")
        if wanted and not _is_workdir(checkpoint):
            raise UserError(f"{checkpoint} is no work folder of `fqgan train`: {flag} finds no second set there.")
    with whole_folder(out) as folder:
        model = load_model(checkpoint)
        discriminator = _discriminator(checkpoint) if with_discriminator else None
        export = Export(model, _parameter_sets(model, checkpoint, with_ema), discriminator, batch_size)
        FORMATS[format](folder, export)
        text = readme(export.description, format, _which_weights(checkpoint, with_ema), batch_size)
        (folder / "README.md").write_text(text)
        return sorted(path.name for path in folder.iterdir())


def load_model(checkpoint: Path) -> Tokenizer | Generator:
    """The tokenizer or generator of a checkpoint, whichever it holds. UserError where it holds neither."""
    if checkpoint.is_file():
        generator = "tok_embeddings_1.weight" in read_checkpoint_file(checkpoint).tensors
    else:
        folder = CheckpointName.parse(checkpoint).workdir
        generator = folder.exists() and read_description(folder).kind == "generator"
    return load_generator(checkpoint) if generator else load_tokenizer(checkpoint)


def _is_generator(model: Tokenizer | Generator) -> bool:
    return isinstance(model, Generator)


def _parameter_sets(model: Tokenizer | Generator, checkpoint: Path, with_ema: bool) -> dict[str, PyTree]:
    if not with_ema:
        return {"model": model.params}
    params, average = load_params_and_average(checkpoint)
    return {"model": params, "ema": average}


def _discriminator(workdir: Path) -> dict[str, np.ndarray]:
    """Published tensors of the discriminator that a run of the tokenizer trains; UserError where it has none."""
    params = load_discriminator_params(workdir)
    config = from_json((CheckpointName.parse(workdir).workdir / "config.json").read_text())
    return export_discriminator(params, build_discriminator(config), config.data.image_size)


def _is_workdir(checkpoint: Path) -> bool:
    return CheckpointName.parse(checkpoint).is_of_a_run


def _which_weights(checkpoint: Path, with_ema: bool) -> str:
    if with_ema:
        return "The set `model` holds the parameters as they were trained, `ema` their moving average."
    if not _is_workdir(checkpoint):
        return "These are the parameters of the checkpoint that was exported."
    if has_average(checkpoint):
        return "These are the moving average of the parameters over training."
    return "These are the parameters as they were trained (no moving average was kept)."


def _write_native(folder: Path, export: Export) -> None:
    export.model.save(folder)


def _write_torch(folder: Path, export: Export) -> None:
    torch = import_extra("torch", "torch")
    tensors = {
        name: {tensor: torch.from_numpy(value) for tensor, value in tensors.items()}
        for name, tensors in export.published().items()
    }
    torch.save(tensors | {METADATA: export.description}, folder / "model.pt")


def _write_safetensors(folder: Path, export: Export) -> None:
    from safetensors.numpy import save

    metadata = {"format": "pt", METADATA: json.dumps(export.description)}
    for name, tensors in export.published().items():
        (folder / f"{name}.safetensors").write_bytes(save(tensors, metadata=metadata))


def _write_stablehlo(folder: Path, export: Export) -> None:
    from safetensors.numpy import save

    from fqgan_jax.export.stablehlo import flat_params, generator_programs, tokenizer_programs

    model = export.model
    programs = generator_programs if _is_generator(model) else tokenizer_programs
    for name, program in programs(model.module, model.params).items():
        (folder / f"{name}.jaxexport").write_bytes(program.serialize())
    (folder / "params.safetensors").write_bytes(save(flat_params(model.params)))


def _write_onnx(folder: Path, export: Export) -> None:
    from fqgan_jax.export.onnx import tokenizer_models

    if _is_generator(export.model):
        raise UserError("--format onnx is for tokenizers alone; --format stablehlo exports a generator's loop.")
    for name, model in tokenizer_models(export.model.module, export.model.params, export.batch_size).items():
        (folder / f"{name}.onnx").write_bytes(model)


FORMATS: dict[str, Callable[[Path, Export], None]] = {
    "native": _write_native,
    "torch": _write_torch,
    "safetensors": _write_safetensors,
    "stablehlo": _write_stablehlo,
    "onnx": _write_onnx,
}
