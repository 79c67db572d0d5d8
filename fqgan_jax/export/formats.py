"""The export formats: each row holds the kinds of model, the writer and the README's code for loading.

A file of yours adds a format (`fqgan export --plugin FILE --format mine`):

    @formats("mine", help="for my framework", readme={"tokenizer": ReadmeText(files=..., code=...)})
    def write_mine(folder, export):
        ...

This module is imported to print the command's help, so it imports JAX only when a format is written.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fqgan_jax.config import Registry
from fqgan_jax.errors import import_extra

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import PyTree

    from fqgan_jax.api import Model
    from fqgan_jax.models.fqgan import FQGAN


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """What an export writes.

    Attributes:
      model: the wrapper of the loaded model.
      sets: its parameters by their name in a published file ("model", "ema").
      discriminator: the published tensors of its discriminator; None if it is not exported.
      batch_size: the number of images of each call, for formats that fix it.
    """

    model: "Model"
    sets: "Mapping[str, PyTree]"
    discriminator: "Mapping[str, np.ndarray] | None" = None
    batch_size: int = 1

    def in_published_terms(self) -> "Export":
        """The same with a model that has published names, if there is one that computes the same."""
        from fqgan_jax.interop import in_published_terms

        converted = {name: in_published_terms(self.model.module, params) for name, params in self.sets.items()}
        module = next(iter(converted.values()))[0]
        model = dataclasses.replace(self.model, module=module)
        return dataclasses.replace(self, model=model, sets={name: params for name, (_, params) in converted.items()})

    def published_sets(self) -> "dict[str, Mapping[str, np.ndarray]]":
        """The named sets of tensors with published names and layouts."""
        from fqgan_jax.interop import export_params

        sets: dict[str, Mapping[str, np.ndarray]] = {
            name: export_params(params, self.model.module) for name, params in self.sets.items()
        }
        return sets if self.discriminator is None else sets | {"discriminator": self.discriminator}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadmeText:
    """Text of a folder's README for a format and a kind of model.

    Both are templates for `str.format`; `export.readme` has the names that they can use.

    Attributes:
      files: describes the files in the folder.
      code: Python that loads them; it runs inside the folder.
    """

    files: str
    code: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A row of `formats`.

    Attributes:
      write: writes the files into a folder that exists.
      help: text in `fqgan export --help`.
      readme: the README's text by kind of model; the format takes these kinds and no other.
      has_named_sets: whether it holds named sets of tensors, such as the moving average and the discriminator.
      has_batch_size: whether its programs have a batch size that is fixed when they are written.
      states_shapes: the README states the shapes of inputs and outputs; False for formats that hold tensors alone.
      gives_latents: what it holds also computes latents before quantization.
    """

    write: Callable[[Path, Export], None]
    help: str
    readme: Mapping[str, ReadmeText]
    has_named_sets: bool = False
    has_batch_size: bool = False
    states_shapes: bool = True
    gives_latents: bool = False


def _row(write: Callable[[Path, Export], None], **attributes: Any) -> ExportFormat:
    return ExportFormat(write=write, **attributes)


formats: Registry[ExportFormat] = Registry("export format", _row)

_NATIVE_FILES = "`params.safetensors` holds the parameters, `model.json` describes the model."
_NATIVE_TOKENIZER = """\
import numpy as np
import fqgan_jax
tokenizer = fqgan_jax.load_tokenizer(".")
codes = tokenizer.encode(np.zeros((1, {H}, {W}, 3), np.uint8))
images = tokenizer.decode(codes)"""
_NATIVE_GENERATOR = """\
import jax
import fqgan_jax
generator = fqgan_jax.load_generator(".")
codes = generator.sample([0], key=jax.random.key(0), guidance=2.0)"""


@formats(
    "native",
    help="for fqgan_jax",
    readme={
        "tokenizer": ReadmeText(files=_NATIVE_FILES, code=_NATIVE_TOKENIZER),
        "generator": ReadmeText(files=_NATIVE_FILES, code=_NATIVE_GENERATOR),
    },
    gives_latents=True,
)
def write_native(folder: Path, export: Export) -> None:
    """Writes the folder that `fqgan_jax.load_model` reads."""
    export.model.save(folder)


_LAYOUTS = (
    "Tensors have the names and layouts of the published PyTorch checkpoints: convolutions (out, in, rows, columns), "
    "linear layers (out, in)."
)
# README text on the names of tensors, by kind of model.
_NAMES = {
    "tokenizer": (
        f"{_LAYOUTS} Sub-codebooks are `vis` and `sem` for K = 2, `vis`, `sem_mid` and `sem_high` for K = 3; for other "
        "K, which were not published, the semantic ones are numbered from 1: `sem_1`, `semantic_head_1`, "
        "`sem_1_feat_pred` and so on. `codebook_used` are statistics buffers, zero here."
    ),
    "generator": (f"{_LAYOUTS} The tables of sub-codebook k are `tok_embeddings_k` and `output_k`, from 1, for any K."),
}
_TORCH = """\
import torch

checkpoint = torch.load("model.pt", weights_only=True)
tensors = checkpoint["model"]
# In PyTorch modules of these names and sizes: module.load_state_dict(tensors, strict=True)
print(len(tensors), "tensors")"""
_SAFETENSORS = """\
from safetensors.torch import load_file  # or safetensors.numpy

tensors = load_file("model.safetensors")
# In PyTorch modules of these names and sizes: module.load_state_dict(tensors, strict=True)
print(len(tensors), "tensors")"""


def _tensor_readme(files: str, code: str) -> dict[str, ReadmeText]:
    return {
        kind: ReadmeText(files=f"{files}; `fqgan_jax.load_{kind}` reads it back. {names}", code=code)
        for kind, names in _NAMES.items()
    }


@formats(
    "torch",
    help="tensors with the published names, for PyTorch",
    readme=_tensor_readme("`model.pt` is a dict of named sets of tensors", _TORCH),
    has_named_sets=True,
    states_shapes=False,
)
def write_torch(folder: Path, export: Export) -> None:
    """Writes `model.pt`: the named sets, and the model's description."""
    from fqgan_jax.interop.checkpoint_files import METADATA

    torch, export = import_extra("torch", "torch"), export.in_published_terms()
    sets = {
        name: {tensor: torch.from_numpy(value) for tensor, value in tensors.items()}
        for name, tensors in export.published_sets().items()
    }
    torch.save(sets | {METADATA: export.model.description.to_json()}, folder / "model.pt")


@formats(
    "safetensors",
    help="tensors with the published names",
    readme=_tensor_readme("One file for each named set of tensors", _SAFETENSORS),
    has_named_sets=True,
    states_shapes=False,
)
def write_safetensors(folder: Path, export: Export) -> None:
    """Writes one file per named set, each with the model's description."""
    from safetensors.numpy import save

    from fqgan_jax.interop.checkpoint_files import METADATA

    export = export.in_published_terms()
    metadata = {"format": "pt", METADATA: json.dumps(export.model.description.to_json())}
    for name, tensors in export.published_sets().items():
        (folder / f"{name}.safetensors").write_bytes(save(dict(tensors), metadata=metadata))


_STABLEHLO_TOKENIZER = """\
import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file


def load(name):
    with open(name, "rb") as file:
        return jax.jit(export.deserialize(bytearray(file.read())).call)


params = jax.device_put(load_file("params.safetensors"))
encode, decode = load("encode.jaxexport"), load("decode.jaxexport")
images = np.zeros((3, {H}, {W}, 3), np.float32)  # any number of images
codes = encode(params, images)
images = decode(params, codes)"""
_STABLEHLO_GENERATOR = """\
import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

params = jax.device_put(load_file("params.safetensors"))
with open("sample.jaxexport", "rb") as file:
    sample = jax.jit(export.deserialize(bytearray(file.read())).call)
labels = np.array([0, 0, 0], np.int32)  # any number of classes
guidance, temperature = np.full({K}, 2.0, np.float32), np.full({K}, 1.0, np.float32)
codes = sample(params, jax.random.key(0), labels, guidance, temperature)"""


@formats(
    "stablehlo",
    help="programs for JAX alone, any batch size, CPU, GPU and TPU",
    readme={
        "tokenizer": ReadmeText(
            files="`encode.jaxexport` and `decode.jaxexport` are StableHLO programs for any batch size, each for CPUs, "
            "NVIDIA GPUs and TPUs, that JAX runs without further libraries; `params.safetensors` is their first "
            "argument. Written by JAX {jax}, computing in {dtype}. Decoded images are clipped to [-1, 1].",
            code=_STABLEHLO_TOKENIZER,
        ),
        "generator": ReadmeText(
            files="`sample.jaxexport` is a StableHLO program for any batch size, for CPUs, NVIDIA GPUs and TPUs, that "
            "JAX runs without further libraries; `params.safetensors` is its first argument. Written by JAX {jax}, "
            "computing in {dtype}. Guidance scale and temperature are given per sub-codebook; temperature 0 takes the "
            "most probable codes. There is no top-k or top-p.",
            code=_STABLEHLO_GENERATOR,
        ),
    },
)
def write_stablehlo(folder: Path, export: Export) -> None:
    """Writes one `.jaxexport` per program, and the parameters that they take."""
    from safetensors.numpy import save

    from fqgan_jax.export.stablehlo import flat_params, programs

    model = export.model
    for name, program in programs[model.kind](model.module, model.params).items():
        (folder / f"{name}.jaxexport").write_bytes(program.serialize())
    (folder / "params.safetensors").write_bytes(save(flat_params(model.params)))


_ONNX_TOKENIZER = """\
import numpy as np
import onnxruntime

encoder = onnxruntime.InferenceSession("encode.onnx")
decoder = onnxruntime.InferenceSession("decode.onnx")
images = np.zeros(({batch_size}, {H}, {W}, 3), np.float32)
codes, latents = encoder.run(None, {{"images": images}})
(images,) = decoder.run(None, {{"codes": codes}})"""


@formats(
    "onnx",
    help="a tokenizer's encoder and decoder",
    readme={
        "tokenizer": ReadmeText(
            files="`encode.onnx` and `decode.onnx` take batches of {batch_size}, compute in float32, and agreed with "
            "JAX to 1e-3 in onnxruntime when they were written (codes wherever one entry is clearly the nearest). "
            "Decoded images are clipped to [-1, 1].",
            code=_ONNX_TOKENIZER,
        )
    },
    has_batch_size=True,
    gives_latents=True,
)
def write_onnx(folder: Path, export: Export) -> None:
    """Writes one ONNX model for encoding and one for decoding."""
    from fqgan_jax.export.onnx import tokenizer_models

    models = tokenizer_models(cast("FQGAN", export.model.module), export.model.params, batch_size=export.batch_size)
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model)
