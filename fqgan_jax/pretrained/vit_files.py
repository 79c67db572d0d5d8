"""CLIP and DINOv2 as the hub publishes them (config.json and model.safetensors) to our module and parameters."""

import json
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import Rule, layer, within
from fqgan_jax.pretrained.tensors import CONFIG, TENSORS, import_tensors, read_tensors
from fqgan_jax.pretrained.vit import ACTIVATIONS, ViT, clip_vit, dino_vit

_CLIP_BLOCK = (
    *layer("norm1", "layer_norm1."),
    *layer("query", "self_attn.q_proj."),
    *layer("key", "self_attn.k_proj."),
    *layer("value", "self_attn.v_proj."),
    *layer("out", "self_attn.out_proj."),
    *layer("norm2", "layer_norm2."),
    *layer("mlp_in", "mlp.fc1."),
    *layer("mlp_out", "mlp.fc2."),
)
_DINO_BLOCK = (
    *layer("norm1", "norm1."),
    *layer("query", "attention.attention.query."),
    *layer("key", "attention.attention.key."),
    *layer("value", "attention.attention.value."),
    *layer("out", "attention.output.dense."),
    Rule("scale1", "layer_scale1.lambda1"),
    *layer("norm2", "norm2."),
    *layer("mlp_in", "mlp.fc1."),
    *layer("mlp_out", "mlp.fc2."),
    Rule("scale2", "layer_scale2.lambda1"),
)
CLIP_RULES = (
    Rule("class_token", "embeddings.class_embedding"),
    Rule("positions", "embeddings.position_embedding.weight"),
    *layer("patches", "embeddings.patch_embedding."),
    *layer("norm_in", "pre_layrnorm."),
    *within("blocks", "encoder.layers.{block}", _CLIP_BLOCK, stack=("block",)),
)
DINO_RULES = (
    Rule("class_token", "embeddings.cls_token"),
    Rule("positions", "embeddings.position_embeddings"),
    Rule("registers", "embeddings.register_tokens"),
    *layer("patches", "embeddings.patch_embeddings.projection."),
    *within("blocks", "encoder.layer.{block}", _DINO_BLOCK, stack=("block",)),
    *layer("norm_out", "layernorm."),
)
PREFIXES = ("vision_model.", "dinov2.")
# What the class token of an image does not need.
UNUSED = ("embeddings.position_ids", "embeddings.mask_token", "post_layernorm.", "visual_projection.", "classifier.")
# Published with leading axes of one, for the batch.
BATCH_AXES = {"embeddings.cls_token": 2, "embeddings.position_embeddings": 1, "embeddings.register_tokens": 1}


def load_vit(folder: Path, image_size: int = 224) -> tuple[ViT, dict]:
    """Module and parameters (nested, float32) of a hub folder of CLIP, whole or its image tower alone, or DINOv2.

    Learned positions are interpolated here, once, to images of `image_size` as the published models do.

    Raises:
      UserError: files that are missing or damaged, another architecture, tensors that are missing or mis-shaped.
    """
    published = read_config(folder)
    # Only CLIP normalizes its tokens before the first block.
    rules = CLIP_RULES if published.norm_in else DINO_RULES
    state = without_prefix(read_tensors(folder / TENSORS))
    what = f"the network that {folder / CONFIG} describes"
    params = import_tensors(state, rules, published, published.image_size, 1, what)
    module = published.clone(image_size=image_size)
    # Only DINOv2 with registers was published with an antialiased resize.
    params["positions"] = interpolate_positions(
        params["positions"], image_size // module.patch_size, antialias=bool(module.num_registers)
    )
    return module, params


def read_config(folder: Path) -> ViT:
    """The module that config.json describes, for images of the size it was trained on.

    Raises:
      UserError: no such file, or a network that this module cannot compute.
    """
    from transformers import CLIPConfig, CLIPVisionConfig, Dinov2Config, Dinov2WithRegistersConfig

    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"There is no {path}: give a folder with {CONFIG} and {TENSORS} as the hub publishes them.")
    classes = {cls.model_type: cls for cls in (CLIPConfig, CLIPVisionConfig, Dinov2Config, Dinov2WithRegistersConfig)}
    try:
        fields = json.loads(path.read_text())
        config_class = classes[fields["model_type"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} describes no network of type {', '.join(classes)}.") from error
    config = config_class.from_dict(fields)
    config = getattr(config, "vision_config", config)
    _check_supported(config, path)
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.patch_size)
    others = {"activation": config.hidden_act, "norm_eps": config.layer_norm_eps, "image_size": config.image_size}
    if config.model_type == CLIPVisionConfig.model_type:
        return clip_vit(*sizes, mlp_width=config.intermediate_size, **others)
    registers = getattr(config, "num_register_tokens", 0)
    return dino_vit(*sizes, mlp_width=config.hidden_size * config.mlp_ratio, num_registers=registers, **others)


def _check_supported(config, path: Path) -> None:
    supported = {
        "hidden_act": tuple(ACTIVATIONS),
        "num_channels": (3,),
        "qkv_bias": (True,),
        "use_swiglu_ffn": (False,),
    }
    for name, values in supported.items():
        value = getattr(config, name, values[0])
        if value not in values:
            raise UserError(f"{path} has {name}={value!r}; supported here: {', '.join(map(repr, values))}.")


def without_prefix(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that the class token needs, named and shaped alike whichever model was saved around them."""
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in state)), "")
    state = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(UNUSED)}
    for name in BATCH_AXES.keys() & state.keys():
        axes = BATCH_AXES[name]
        if state[name].shape[:axes] == (1,) * axes:
            state[name] = state[name].reshape(state[name].shape[axes:])
    return state


def interpolate_positions(positions: Float[np.ndarray, "T D"], grid: int, antialias: bool) -> Float[np.ndarray, "T2 D"]:
    """Learned positions of a class token and a square grid, the grid's interpolated (bicubic) to another size."""
    learned = math.isqrt(len(positions) - 1)
    if learned == grid:
        return positions
    matrix = bicubic_matrix(learned, grid, antialias)
    table = positions[1:].astype(np.float64).reshape(learned, learned, -1)
    table = np.einsum("ri,cj,ijd->rcd", matrix, matrix, table, optimize=True)
    return np.concatenate([positions[:1], table.reshape(grid * grid, -1).astype(np.float32)])


def bicubic_matrix(size: int, new_size: int, antialias: bool) -> Float[np.ndarray, "{new_size} {size}"]:
    """PyTorch's bicubic resize of one axis (align_corners off) as a matrix.

    Keys' kernel (1981), a = -0.75 with repeated borders; antialiased, a = -0.5 stretched by the reduction, its weights
    normalized at the borders.
    """
    scale = size / new_size
    centers = (np.arange(new_size)[:, None] + 0.5) * scale - 0.5
    if antialias:
        weights = _cubic((np.arange(size) - centers) / max(scale, 1), -0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    taps = np.floor(centers).astype(int) + np.arange(-1, 3)
    matrix = np.zeros((new_size, size))
    np.add.at(matrix, (np.arange(new_size)[:, None], taps.clip(0, size - 1)), _cubic(taps - centers, -0.75))
    return matrix


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))
