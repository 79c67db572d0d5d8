"""Tokenizers in published checkpoints: names of tensors, and a tokenizer's fields, given their shapes."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import (
    Layout,
    Rule,
    Shape,
    count_tensors,
    layer,
    published_row,
    shape_of,
    within,
)
from fqgan_jax.models.applying import apply
from fqgan_jax.models.fqgan import FQGAN

_MODEL = "a tokenizer"
_CODEBOOK = "quantize_{code}.embedding.weight"

_RESIDUAL_BLOCK = (
    *layer("norm1/norm", "norm1."),
    *layer("conv1", "conv1."),
    *layer("norm2/norm", "norm2."),
    *layer("conv2", "conv2."),
    *layer("shortcut", "nin_shortcut."),
)
_SPATIAL_ATTENTION = (
    *layer("norm/norm", "norm."),
    *layer("query", "q.", Layout.POINTWISE),
    *layer("key", "k.", Layout.POINTWISE),
    *layer("value", "v.", Layout.POINTWISE),
    *layer("out", "proj_out.", Layout.POINTWISE),
)
_TRANSFORMER_BLOCK = (
    *layer("norm1", "ln_1."),
    *layer("qkv", "attn.in_proj_"),
    *layer("out", "attn.out_proj."),
    *layer("norm2", "ln_2."),
    *layer("mlp_in", "mlp.c_fc."),
    *layer("mlp_out", "mlp.c_proj."),
)
_TRANSFORMER = (
    Rule("positions", "positional_embedding"),
    *layer("norm_in", "ln_pre."),
    *within("transformer/blocks", "transformer.{block}", _TRANSFORMER_BLOCK, stack=("block",)),
    *layer("norm_out", "ln_post."),
)
_FEATURE_HEAD = (
    Rule("class_token", "class_embedding"),
    *layer("expand1", "upscale.0."),
    *layer("expand2", "upscale.2."),
    *_TRANSFORMER,
)
_AUTOENCODER = (
    *layer("conv_in", "conv_in."),
    *within("level{level}/block{block}", "conv_blocks.{level}.res.{block}", _RESIDUAL_BLOCK),
    *within("level{level}/attention{block}", "conv_blocks.{level}.attn.{block}", _SPATIAL_ATTENTION),
    *layer("down{level}", "conv_blocks.{level}.downsample.conv."),
    *layer("up{level}", "conv_blocks.{level}.upsample.conv."),
    *within("middle/block1", "mid.0", _RESIDUAL_BLOCK),
    *within("middle/attention", "mid.1", _SPATIAL_ATTENTION),
    *within("middle/block2", "mid.2", _RESIDUAL_BLOCK),
    *layer("norm_out/norm", "norm_out."),
    *layer("conv_out", "conv_out."),
)
_REST = (
    *within("encoder", "encoder", _AUTOENCODER),
    *within("feature_predictors_{k}", "{predictor}", _FEATURE_HEAD),
    *layer("from_codes", "post_quant_conv.", Layout.POINTWISE),
    *within("decoder", "decoder", _AUTOENCODER),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedHead:
    """How a row of `models.heads.heads` is written in published files.

    Attributes:
      rules: names of its parameters, whose paths begin with "heads/".
      tensor: name of a tensor that every file with this head holds and no file with another.
    """

    rules: tuple[Rule, ...]
    tensor: str


published_heads: Registry[PublishedHead] = Registry("head")
published_heads.add(
    "adapters",
    PublishedHead(
        rules=(
            *within("heads/heads/adapter", "encoder.{adapter}.0", _TRANSFORMER, stack=("k",)),
            *layer("heads/heads/norm_out/norm", "encoder.norm_out_{code}.", stack=("k",)),
            *layer("heads/heads/conv_out", "encoder.conv_out_{code}.", stack=("k",)),
            *layer("heads/heads/to_latent", "quant_conv_{code}.", Layout.POINTWISE, stack=("k",)),
        ),
        tensor="encoder.conv_out_vis.weight",
    ),
)
# Not published, named by the same pattern.
published_heads.add(
    "split",
    PublishedHead(
        rules=(*layer("heads/norm_out/norm", "encoder.norm_out."), *layer("heads/conv_out", "encoder.conv_out.")),
        tensor="encoder.conv_out.weight",
    ),
)

# A row is the names of the parameters of a row of `models.quantizers.quantizers`, whose paths begin with "quantizer/".
published_quantizers: Registry[tuple[Rule, ...]] = Registry("quantizer")
published_quantizers.add("vq", (Rule("quantizer/codebooks", _CODEBOOK, stack=("k",)),))


def tokenizer_in_published_terms(module: FQGAN, params: Mapping) -> tuple[FQGAN, Mapping]:
    """Returns a tokenizer that computes the same codes and images and has published names, if there is one.

    The entries of SimVQ and IBQ become a plain table. Other tokenizers are returned as they are.
    """
    if module.quantizer not in ("simvq", "ibq"):
        return module, params
    table = apply(module, params, method="all_entries")
    return module.clone(quantizer="vq"), {**params, "quantizer": {"codebooks": table}}


def tokenizer_rules(module: FQGAN) -> tuple[Rule, ...]:
    """Returns the names of a tokenizer's parameters.

    Raises:
      UserError: its head or its quantizer has no published names.
    """
    head = published_row(published_heads, module.factorization)
    return (*_REST, *head.rules, *published_row(published_quantizers, module.quantizer))


def usage_buffers(module: FQGAN) -> dict[str, np.ndarray]:
    """Returns the statistics of recently used codes in every published quantizer, empty; no part of the model."""
    names = codebook_names(module.num_codebooks)
    return {f"quantize_{name['code']}.codebook_used": np.zeros(65536, np.float32) for name in names}


def codebook_names(num_codebooks: int) -> list[dict[str, str]]:
    """Returns, per sub-codebook, its own name (`code`), its adapter's and its feature head's (`predictor`).

    K = 2 and K = 3 are published. Otherwise semantic sub-codebooks are numbered from 1: `sem_1`, `semantic_head_1`,
    `sem_1_feat_pred` and so on. A feature head on the visual sub-codebook (not published) is `vis_feat_pred`.
    """
    names = [{"code": "vis", "adapter": "visual_head", "predictor": "vis_feat_pred"}]
    if num_codebooks == 2:
        return [*names, {"code": "sem", "adapter": "semantic_head", "predictor": "feat_pred_head"}]
    for k in range(1, num_codebooks):
        level = ("mid", "high")[k - 1] if num_codebooks == 3 else str(k)
        predictor = f"{level}_sem_feat_pred" if num_codebooks == 3 else f"sem_{level}_feat_pred"
        names.append({"code": f"sem_{level}", "adapter": f"semantic_head_{level}", "predictor": predictor})
    return names


def infer_tokenizer_fields(
    shapes: Mapping[str, Shape],
    *,
    grid: tuple[int, int] | None = None,
    adapter_heads: int = 8,
    feature_heads: int = 8,
    normalized: bool = True,
) -> dict[str, Any]:
    """Returns the fields of `FQGAN` for a checkpoint's tensors.

    Args:
      shapes: published shape of each tensor by name.
      grid: (h, w) of the training images; by default square (that of 256x256 images if no tensor depends on it).
      adapter_heads: attention heads of each adapter.
      feature_heads: attention heads of each feature head.
      normalized: whether codes are unit vectors.

    Raises:
      UserError: the tensors are not a tokenizer's.
    """
    names = codebook_names(
        max(1, sum(re.fullmatch(r"quantize_\w+\.embedding\.weight", name) is not None for name in shapes))
    )
    size, code_dim = shape_of(shapes, _CODEBOOK.format(**names[0]), rank=2, model=_MODEL)
    base_width = shape_of(shapes, "encoder.conv_in.weight", rank=4, model=_MODEL)[0]
    first_convolution = "encoder.conv_blocks.{}.res.0.conv1.weight"
    levels = max(1, count_tensors(shapes, first_convolution))
    widths = [shape_of(shapes, first_convolution.format(i), rank=4, model=_MODEL)[0] for i in range(levels)]
    if any(width % base_width for width in widths):
        raise UserError(f"The levels' widths {widths} are no multiples of the encoder's first width {base_width}.")
    predictors = [name["predictor"] for name in names]
    feature_depths = [count_tensors(shapes, f"{predictor}.transformer.{{}}.ln_1.weight") for predictor in predictors]
    feature_widths = tuple(shapes.get(f"{predictor}.class_embedding", (1, None))[1] for predictor in predictors)
    return {
        "num_codebooks": len(names),
        "codebook_size": size,
        "code_dim": code_dim,
        "grid": _grid(shapes, names, levels, grid),
        "base_width": base_width,
        "multipliers": tuple(width // base_width for width in widths),
        "num_blocks": count_tensors(shapes, "encoder.conv_blocks.0.res.{}.conv1.weight"),
        "z_channels": shape_of(shapes, "post_quant_conv.weight", rank=4, model=_MODEL)[0],
        "factorization": _factorization(shapes),
        "adapter_depth": count_tensors(shapes, f"encoder.{names[0]['adapter']}.0.transformer.{{}}.ln_1.weight"),
        "adapter_heads": adapter_heads,
        "feature_widths": feature_widths if any(feature_widths) else (),
        "feature_depth": max(feature_depths),
        "feature_heads": feature_heads,
        "normalized": normalized,
    }


def _factorization(shapes: Mapping[str, Shape]) -> str:
    """The head whose tensors the checkpoint holds; the published one if it holds none."""
    return next((name for name, row in published_heads.items() if row.tensor in shapes), "adapters")


def _grid(
    shapes: Mapping[str, Shape], names: list[dict[str, str]], levels: int, grid: tuple[int, int] | None
) -> tuple[int, int]:
    """The given grid, or the square one of the learned positions; `UserError` if it does not fit them."""
    adapter = shapes.get(f"encoder.{names[0]['adapter']}.0.positional_embedding")
    heads = [shapes.get(f"{name['predictor']}.positional_embedding") for name in names]
    positions = [adapter[0]] if adapter else [head[0] - 1 for head in heads if head]
    if not positions:
        side = 256 // 2 ** (levels - 1)
        return grid or (side, side)
    side = math.isqrt(positions[0])
    grid = grid or (side, side)
    if math.prod(grid) != positions[0]:
        raise UserError(
            f"This tokenizer has {positions[0]} learned positions, which is no grid of {grid[0]} x {grid[1]}. "
            "Give grid=(rows, columns) of the images it was trained on, divided by its downsampling."
        )
    return grid
