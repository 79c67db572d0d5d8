"""The README.md of an export folder: what lies in it, shapes, value ranges, and the lines that load it."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from fqgan_jax.models.fields import downsampling

_NAMES = (
    "Tensors have the names and layouts of the published PyTorch checkpoints: convolutions (out, in, rows, columns), "
    "linear layers (out, in)."
)
_TOKENIZER_NAMES = (
    f"{_NAMES} Sub-codebooks are `vis` and `sem` for K = 2, `vis`, `sem_mid` and `sem_high` for K = 3; for other K, "
    "which were not published, the semantic ones are numbered from 1: `sem_1`, `semantic_head_1`, `sem_1_feat_pred` "
    "and so on. `codebook_used` are statistics buffers, zero here."
)
_GENERATOR_NAMES = f"{_NAMES} The tables of sub-codebook k are `tok_embeddings_k` and `output_k`, from 1, for any K."
_BACK = "`fqgan_jax.load_{kind}` reads it back"

_STRICT = """\
# In PyTorch modules of these names and sizes: module.load_state_dict(tensors, strict=True)"""

_CODE = {
    ("native", "tokenizer"): """\
import numpy as np
import fqgan_jax

tokenizer = fqgan_jax.load_tokenizer(".")
images = np.zeros((1, {H}, {W}, 3), np.uint8)
codes = tokenizer.encode(images)
images = tokenizer.decode(codes)""",
    ("native", "generator"): """\
import jax
import fqgan_jax

generator = fqgan_jax.load_generator(".")
codes = generator.sample([0], key=jax.random.key(0), guidance=2.0)""",
    ("torch", ""): """\
import torch

checkpoint = torch.load("model.pt", weights_only=True)
tensors = checkpoint["model"]
{strict}
print(len(tensors), "tensors")""",
    ("safetensors", ""): """\
from safetensors.torch import load_file  # or safetensors.numpy

tensors = load_file("model.safetensors")
{strict}
print(len(tensors), "tensors")""",
    ("stablehlo", "tokenizer"): """\
import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

params = jax.device_put(load_file("params.safetensors"))
load = lambda name: jax.jit(export.deserialize(bytearray(open(name, "rb").read())).call)
encode, decode = load("encode.jaxexport"), load("decode.jaxexport")
images = np.zeros((3, {H}, {W}, 3), np.float32)  # any number of images
codes = encode(params, images)
images = decode(params, codes)""",
    ("stablehlo", "generator"): """\
import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

params = jax.device_put(load_file("params.safetensors"))
sample = jax.jit(export.deserialize(bytearray(open("sample.jaxexport", "rb").read())).call)
labels = np.array([0, 0, 0], np.int32)  # any number of classes
guidance, temperature = np.full({K}, 2.0, np.float32), np.full({K}, 1.0, np.float32)
codes = sample(params, jax.random.key(0), labels, guidance, temperature)""",
    ("onnx", "tokenizer"): """\
import numpy as np
import onnxruntime

encoder = onnxruntime.InferenceSession("encode.onnx")
decoder = onnxruntime.InferenceSession("decode.onnx")
images = np.zeros(({batch_size}, {H}, {W}, 3), np.float32)
codes, latents = encoder.run(None, {{"images": images}})
(images,) = decoder.run(None, {{"codes": codes}})""",
}

_FILES = {
    ("native", "tokenizer"): "`params.safetensors` holds the parameters, `model.json` what the model is.",
    ("torch", "tokenizer"): f"`model.pt` is a dict of named sets of tensors; {_BACK}. {_TOKENIZER_NAMES}",
    ("torch", "generator"): f"`model.pt` is a dict of named sets of tensors; {_BACK}. {_GENERATOR_NAMES}",
    ("safetensors", "tokenizer"): f"One file for each named set of tensors; {_BACK}. {_TOKENIZER_NAMES}",
    ("safetensors", "generator"): f"One file for each named set of tensors; {_BACK}. {_GENERATOR_NAMES}",
    ("stablehlo", "tokenizer"): (
        "`encode.jaxexport` and `decode.jaxexport` are StableHLO programs for any batch size, each for CPUs, NVIDIA "
        "GPUs and TPUs, that JAX runs without further libraries; `params.safetensors` is their first argument. "
        "Written by JAX {jax}, computing in {dtype}. Decoded images are clipped to [-1, 1]."
    ),
    ("stablehlo", "generator"): (
        "`sample.jaxexport` is a StableHLO program for any batch size, for CPUs, NVIDIA GPUs and TPUs, that JAX runs "
        "without further libraries; `params.safetensors` is its first argument. Written by JAX {jax}, computing in "
        "{dtype}. Guidance scale and temperature are given per sub-codebook; temperature 0 takes the most probable "
        "codes. There is no top-k or top-p."
    ),
    ("onnx", "tokenizer"): (
        "`encode.onnx` and `decode.onnx` take batches of {batch_size}, compute in float32, and agreed with JAX to 1e-3 "
        "in onnxruntime when they were written (codes wherever one entry is clearly the nearest). Decoded images are "
        "clipped to [-1, 1]."
    ),
}
_FILES["native", "generator"] = _FILES["native", "tokenizer"]


# Formats that hold tensors alone; the others run, and state their shapes.
_TENSORS = ("torch", "safetensors")


def readme(description: Mapping[str, Any], format: str, weights: str, batch_size: int) -> str:
    """Text of the README of a folder in this format; its code runs inside the folder.

    `description` is the content of `model.json`; `weights` a sentence on which parameters these are,
    `batch_size` that of the ONNX models.
    """
    kind, fields = description["kind"], description["fields"]
    facts = {"K": fields["num_codebooks"], "batch_size": batch_size, "jax": jax.__version__, "strict": _STRICT}
    facts |= {"dtype": fields["dtype"], "kind": kind}
    if kind == "tokenizer":
        f = downsampling(fields["multipliers"])
        facts |= {"H": fields["grid"][0] * f, "W": fields["grid"][1] * f}
    code = _CODE.get((format, kind)) or _CODE[format, ""]
    parts = [
        f"# {'FAR generator' if kind == 'generator' else 'FQGAN tokenizer'}: {format} export of fqgan_jax",
        f"{_FILES[format, kind].format(**facts)} {weights}",
        f"```python\n{code.format(**facts)}\n```",
        "\n".join(f"- {line}" for line in _values(kind, fields, format, facts)),
    ]
    if description["class_names"]:
        parts.append("Classes: " + ", ".join(f"{i} {name}" for i, name in enumerate(description["class_names"])) + ".")
    if description.get("tokenizer"):
        parts.append(f"It draws codes of the tokenizer whose fingerprint is `{description['tokenizer']}`.")
    parts.append("Sizes: " + ", ".join(f"`{name}={value}`" for name, value in fields.items()) + ".")
    return "\n\n".join(parts) + "\n"


def _values(kind: str, fields: Mapping[str, Any], format: str, facts: Mapping[str, Any]) -> list[str]:
    """What goes in and comes out: shapes where the format fixes them, and ranges."""
    (h, w), K, N = fields["grid"], fields["num_codebooks"], fields["codebook_size"]
    shape = lambda *sizes: "" if format in _TENSORS else f" `[{', '.join(map(str, ('B', *sizes)))}]`"
    codes = f"codes: int32{shape(h, w, K)}, 0 to {N - 1}, {K} at each of {h} x {w} positions"
    if kind == "generator":
        return [f"labels: int32{shape()}, 0 to {fields['num_classes'] - 1}", codes]
    H, W = facts["H"], facts["W"]
    lines = [
        f"images: float32{shape(H, W, 3)}, {H} x {W} pixels, RGB, -1 to 1",
        f"{codes} ({K * math.log2(N):.4g} bits a position)",
    ]
    if format in ("native", "onnx"):
        lines.append(f"latents, before quantization: float32{shape(h, w, K, fields['code_dim'])}")
    return lines
