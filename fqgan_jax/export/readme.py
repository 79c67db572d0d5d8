"""The README.md of an export folder: which files it holds, the code that loads them, shapes and value ranges."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from fqgan_jax.api import Generator, Model, Tokenizer
from fqgan_jax.config import Registry
from fqgan_jax.export.formats import Export, ExportFormat, formats


@dataclasses.dataclass(frozen=True, kw_only=True)
class KindText:
    """README text for a kind of model; a row of `kind_texts`.

    Attributes:
      title: the kind in words.
      sizes: numbers for the templates of a format's text, by name.
      values: a line on each input and output: shape, if the format states shapes, and range.
    """

    title: str
    sizes: Callable[..., dict[str, int]]
    values: Callable[..., list[str]]


kind_texts: Registry[KindText] = Registry("kind of model")


def readme(export: Export, format_name: str, weights: str) -> str:
    """Returns the text of the README of a folder in this format.

    A format's text can use the names K, H, W (of tokenizers), batch_size, dtype and jax (its version).

    Args:
      export: what the folder holds.
      format_name: the format's row.
      weights: a sentence on which parameters these are.
    """
    model, row, kind_text = export.model, formats[format_name], kind_texts[export.model.kind]
    description = model.description
    values = {
        "K": model.module.num_codebooks,
        "batch_size": export.batch_size,
        "dtype": description.fields["dtype"],
        "jax": jax.__version__,
        **kind_text.sizes(model),
    }
    text = row.readme[model.kind]
    parts = [
        f"# {kind_text.title}: {format_name} export of fqgan_jax",
        f"{text.files.format(**values)} {weights}",
        f"```python\n{text.code.format(**values)}\n```",
        "\n".join(f"- {line}" for line in kind_text.values(model, row)),
    ]
    if description.class_names:
        names = ", ".join(f"{label} {name}" for label, name in enumerate(description.class_names))
        parts.append(f"Classes: {names}.")
    if description.tokenizer:
        parts.append(f"It samples codes of the tokenizer whose fingerprint is `{description.tokenizer}`.")
    parts.append("Sizes: " + ", ".join(f"`{name}={value}`" for name, value in description.fields.items()) + ".")
    return "\n\n".join(parts) + "\n"


def _tokenizer_sizes(tokenizer: Tokenizer) -> dict[str, int]:
    h, w = tokenizer.module.grid
    return {"H": h * tokenizer.downsampling, "W": w * tokenizer.downsampling}


def _tokenizer_values(tokenizer: Tokenizer, row: ExportFormat) -> list[str]:
    (h, w), K = tokenizer.module.grid, tokenizer.module.num_codebooks
    H, W = _tokenizer_sizes(tokenizer).values()
    bits = K * math.log2(tokenizer.module.codebook_size)
    lines = [
        f"images: float32{_shape(row, H, W, 3)}, {H} x {W} pixels, RGB, -1 to 1",
        f"{_codes(tokenizer, row)} ({bits:.4g} bits a position)",
    ]
    if row.gives_latents:
        lines.append(f"latents, before quantization: float32{_shape(row, h, w, K, tokenizer.module.code_dim)}")
    return lines


def _generator_values(generator: Generator, row: ExportFormat) -> list[str]:
    labels = f"labels: int32{_shape(row)}, 0 to {generator.module.num_classes - 1}"
    return [labels, _codes(generator, row)]


def _no_sizes(_: Model) -> dict[str, Any]:
    return {}


kind_texts.add("tokenizer", KindText(title="FQGAN tokenizer", sizes=_tokenizer_sizes, values=_tokenizer_values))
kind_texts.add("generator", KindText(title="FAR generator", sizes=_no_sizes, values=_generator_values))


def _codes(model: Tokenizer | Generator, row: ExportFormat) -> str:
    (h, w), K, N = model.module.grid, model.module.num_codebooks, model.module.codebook_size
    return f"codes: int32{_shape(row, h, w, K)}, 0 to {N - 1}, {K} at each of {h} x {w} positions"


def _shape(row: ExportFormat, *sizes: int) -> str:
    if not row.states_shapes:
        return ""
    return f" `[{', '.join(['B', *map(str, sizes)])}]`"
