"""Names of tokenizer tensors in published checkpoints, and what a tokenizer's fields are, given their shapes."""

import math
import re
from collections.abc import Mapping
from typing import Any

from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import Layout, Rule, Shape, count, layer, shape_of, within

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
    *within("transformer/blocks", "transformer.{block}", _TRANSFORMER_BLOCK, ("block",)),
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
TOKENIZER_RULES = (
    *within("encoder", "encoder", _AUTOENCODER),
    # factorization="adapters", stacked over sub-codebooks
    *within("heads/heads/adapter", "encoder.{adapter}.0", _TRANSFORMER, ("k",)),
    *layer("heads/heads/norm_out/norm", "encoder.norm_out_{code}.", stack=("k",)),
    *layer("heads/heads/conv_out", "encoder.conv_out_{code}.", stack=("k",)),
    *layer("heads/heads/to_latent", "quant_conv_{code}.", Layout.POINTWISE, ("k",)),
    # factorization="split": not published, named by the same pattern
    *layer("heads/norm_out/norm", "encoder.norm_out."),
    *layer("heads/conv_out", "encoder.conv_out."),
    Rule("quantizer/codebooks", _CODEBOOK, stack=("k",)),
    *within("feature_predictors_{k}", "{predictor}", _FEATURE_HEAD),
    *layer("from_codes", "post_quant_conv.", Layout.POINTWISE),
    *within("decoder", "decoder", _AUTOENCODER),
)

# Statistics of recently used codes: a buffer of this size in every published quantizer, no part of the model.
USAGE_BUFFER = "quantize_{code}.codebook_used"
USAGE_BUFFER_SIZE = 65536


def codebook_names(num_codebooks: int) -> list[dict[str, str]]:
    """Per sub-codebook: its own name (`code`), its adapter's and its feature head's (`predictor`).

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


def tokenizer_config(
    shapes: Mapping[str, Shape],
    *,
    grid: tuple[int, int] | None = None,
    adapter_heads: int = 8,
    feature_heads: int = 8,
    normalized: bool = True,
) -> dict[str, Any]:
    """Fields of `models.tokenizer.Tokenizer` for a checkpoint's tensors (name to published shape).

    The keywords are what shapes do not tell. `grid` is taken as square where it is not given (and as that of 256x256
    images where nothing is tied to positions). UserError where the tensors are not a tokenizer's.
    """
    names = codebook_names(
        max(1, sum(re.fullmatch(r"quantize_\w+\.embedding\.weight", name) is not None for name in shapes))
    )
    size, code_dim = shape_of(shapes, _CODEBOOK.format(**names[0]), 2, _MODEL)
    base_width = shape_of(shapes, "encoder.conv_in.weight", 4, _MODEL)[0]
    first_convolution = "encoder.conv_blocks.{}.res.0.conv1.weight"
    levels = max(1, count(shapes, first_convolution))
    widths = [shape_of(shapes, first_convolution.format(i), 4, _MODEL)[0] for i in range(levels)]
    if any(width % base_width for width in widths):
        raise UserError(f"The levels' widths {widths} are no multiples of the encoder's first width {base_width}.")
    predictors = [name["predictor"] for name in names]
    feature_widths = tuple(shapes.get(f"{predictor}.class_embedding", (1, None))[1] for predictor in predictors)
    return {
        "num_codebooks": len(names),
        "codebook_size": size,
        "code_dim": code_dim,
        "grid": _grid(shapes, names, levels, grid),
        "base_width": base_width,
        "multipliers": tuple(width // base_width for width in widths),
        "num_blocks": count(shapes, "encoder.conv_blocks.0.res.{}.conv1.weight"),
        "z_channels": shape_of(shapes, "post_quant_conv.weight", 4, _MODEL)[0],
        "factorization": "split" if "encoder.conv_out.weight" in shapes else "adapters",
        "adapter_depth": count(shapes, f"encoder.{names[0]['adapter']}.0.transformer.{{}}.ln_1.weight"),
        "adapter_heads": adapter_heads,
        "feature_widths": feature_widths if any(feature_widths) else (),
        "feature_depth": max(count(shapes, predictor + ".transformer.{}.ln_1.weight") for predictor in predictors),
        "feature_heads": feature_heads,
        "normalized": normalized,
    }


def _grid(
    shapes: Mapping[str, Shape], names: list[dict[str, str]], levels: int, grid: tuple[int, int] | None
) -> tuple[int, int]:
    """The given grid, or the square one of the learned positions; UserError where it does not fit them."""
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
