"""Generators in published checkpoints: names of tensors, and a generator's fields, given their shapes."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fqgan_jax.errors import UserError, check
from fqgan_jax.interop.correspondence import Layout, Rule, Shape, count_tensors, layer, shape_of, within
from fqgan_jax.models.causal_layers import swiglu_width
from fqgan_jax.models.far import FAR

_MODEL = "a FAR generator"

_BLOCK = (
    *layer("attention_norm", "attention_norm."),
    *layer("qkv", "attention.wqkv."),
    *layer("out", "attention.wo."),
    *layer("mlp_norm", "ffn_norm."),
    *layer("gate", "feed_forward.w1."),
    *layer("up", "feed_forward.w3."),
    *layer("down", "feed_forward.w2."),
)
FAR_RULES = (
    Rule("class_table", "cls_embedding.embedding_table.weight"),
    Rule("code_tables", "tok_embeddings_{number}.weight", stack=("k",)),
    *layer("aggregate", "aggregation_layer."),
    *within("backbone/blocks", "layers.{block}", _BLOCK, stack=("block",)),
    *within("head/blocks", "ar_head.{block}", _BLOCK, stack=("block",)),
    *layer("norm", "norm."),
    Rule("outputs", "output_{number}.weight", Layout.KERNEL, stack=("k",)),
)


def far_rules(module: FAR) -> tuple[Rule, ...]:
    """Returns the names of a generator's parameters.

    Raises:
      UserError: it has parts that no published generator has.
    """
    unpublished = {
        "prediction": module.prediction != "transformer",
        "target_positions": module.target_positions,
        "entry_dim": bool(module.entry_dim),
    }
    for name, differs in unpublished.items():
        check(
            not differs,
            f"A generator with {name}={getattr(module, name)!r} has no published tensor names: such models are read "
            "and written in native form alone (--format native).",
        )
    return FAR_RULES


def far_in_published_terms(module: FAR, params: Mapping) -> tuple[FAR, Mapping]:
    """Returns a generator whose embeddings are tables, which computes the same."""
    if not module.entry_dim:
        return module, params
    rest = {name: value for name, value in params.items() if name not in ("code_entries", "code_projection")}
    tables = np.einsum("knd,kde->kne", *(np.asarray(params[name]) for name in ("code_entries", "code_projection")))
    return module.clone(entry_dim=0), {**rest, "code_tables": tables}


# Attention heads of the published generators, by width.
PUBLISHED_HEADS = {1024: 16, 1280: 20}


def table_names(num_codebooks: int) -> list[dict[str, str]]:
    """Returns, per sub-codebook, the `number` of its tables: from 1, in sub-codebook order, for any K."""
    return [{"number": str(k + 1)} for k in range(num_codebooks)]


def infer_generator_fields(
    shapes: Mapping[str, Shape], *, num_heads: int | None = None, grid: tuple[int, int] = (16, 16), dropout: float = 0.1
) -> dict[str, Any]:
    """Returns the fields of `FAR` for a checkpoint's tensors.

    Args:
      shapes: published shape of each tensor by name.
      num_heads: attention heads; has a default for the published widths only.
      grid: (h, w) of the codes.
      dropout: rate in training.

    Raises:
      UserError: the tensors are not a generator's, or `num_heads` is needed.
    """
    codebook_size, width = shape_of(shapes, "tok_embeddings_1.weight", rank=2, model=_MODEL)
    num_heads = num_heads or PUBLISHED_HEADS.get(width)
    if num_heads is None:
        known = ", ".join(f"{heads} for width {size}" for size, heads in PUBLISHED_HEADS.items())
        raise UserError(
            f"The number of attention heads of a generator of width {width} cannot be inferred from its tensors "
            f"(published: {known}). "
            "Give num_heads."
        )
    if width % (4 * num_heads):
        raise UserError(f"num_heads={num_heads} does not split width {width} into heads of a multiple of 4.")
    hidden, _ = shape_of(shapes, "layers.0.feed_forward.w1.weight", rank=2, model=_MODEL)
    shape_of(shapes, "ar_head.0.feed_forward.w1.weight", rank=2, model=_MODEL)
    return {
        "num_codebooks": sum(re.fullmatch(r"tok_embeddings_\d+\.weight", name) is not None for name in shapes),
        "codebook_size": codebook_size,
        "num_classes": shape_of(shapes, "cls_embedding.embedding_table.weight", rank=2, model=_MODEL)[0] - 1,
        "grid": tuple(grid),
        "width": width,
        "depth": count_tensors(shapes, "layers.{}.attention.wqkv.weight"),
        "num_heads": num_heads,
        "head_depth": count_tensors(shapes, "ar_head.{}.attention.wqkv.weight"),
        "dropout": dropout,
        "swiglu_multiple": _swiglu_multiple(width, hidden),
    }


def _swiglu_multiple(width: int, hidden: int) -> int:
    """A multiple that gives the hidden width: the largest power of two up to the published 256, or the width itself.

    Several multiples may give the same width; the model is the same. Raises `UserError` if none does.
    """
    candidates = (256, 128, 64, 32, 16, 8, 4, 2, 1, hidden)
    multiple = next((m for m in candidates if swiglu_width(width, m) == hidden), None)
    if multiple is None:
        raise UserError(
            f"No SwiGLU of width {width} has a hidden width of {hidden}: two thirds of 4 x {width} is more."
        )
    return multiple
