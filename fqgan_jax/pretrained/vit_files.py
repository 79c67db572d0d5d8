"""Loading CLIP and DINOv2 as the hub publishes them (config.json and model.safetensors)."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fqgan_jax.config.rules import Number, Whole
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
# Tensors that the class token of an image does not need.
UNUSED = ("embeddings.position_ids", "embeddings.mask_token", "post_layernorm.", "visual_projection.", "classifier.")
# Published with leading axes of one, for the batch.
BATCH_AXES = {"embeddings.cls_token": 2, "embeddings.position_embeddings": 1, "embeddings.register_tokens": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How a family of vision transformers is published.

    Attributes:
      config_classes: names of the classes in transformers that read its config.json.
      build: makes the module that such a configuration describes.
      rules: correspondence of its tensors.
      prefix: of the names of its tensors in files that hold more than the image tower.
      antialias: whether learned positions are interpolated with antialiasing.
      mean: of the images in [0, 1] that it was trained on, per channel.
      std: of these images, per channel.
    """

    config_classes: tuple[str, ...]
    build: Callable[[Any], ViT]
    rules: tuple[Rule, ...]
    prefix: str
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# What the sizes in config.json may be.
_WIDTH, _COUNT = Whole(1, 2**16), Whole(1, 1024)
_SIZES = {
    "hidden_size": _WIDTH,
    "intermediate_size": _WIDTH,
    "mlp_ratio": Number(0, 64, above=True),
    "num_hidden_layers": _COUNT,
    "num_attention_heads": _COUNT,
    "num_register_tokens": Whole(0, 1024),
    "patch_size": _COUNT,
    "image_size": Whole(1, 2**14),
    "layer_norm_eps": Number(0, 1),
}


def _sizes(config) -> dict[str, Any]:
    return {
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "patch_size": config.patch_size,
        "activation": config.hidden_act,
        "norm_eps": config.layer_norm_eps,
        "image_size": config.image_size,
    }


def _build_clip(config) -> ViT:
    return clip_vit(**_sizes(config), mlp_width=config.intermediate_size)


def _build_dino(config) -> ViT:
    return dino_vit(**_sizes(config), mlp_width=config.hidden_size * config.mlp_ratio)


def _build_dino_with_registers(config) -> ViT:
    return _build_dino(config).clone(num_registers=config.num_register_tokens)


CLIP = Family(
    config_classes=("CLIPConfig", "CLIPVisionConfig"),
    build=_build_clip,
    rules=CLIP_RULES,
    prefix="vision_model.",
    antialias=False,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
DINOV2 = Family(
    config_classes=("Dinov2Config",),
    build=_build_dino,
    rules=DINO_RULES,
    prefix="dinov2.",
    antialias=False,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
DINOV2_WITH_REGISTERS = dataclasses.replace(
    DINOV2,
    config_classes=("Dinov2WithRegistersConfig",),
    build=_build_dino_with_registers,
    prefix="dinov2_with_registers.",
    antialias=True,
)


def load_vit(folder: Path, family: Family, *, image_size: int = 224) -> tuple[ViT, dict]:
    """Loads a hub folder of a family, whole or its image tower alone.

    Args:
      folder: holds config.json and model.safetensors.
      family: how the network is published.
      image_size: learned positions are interpolated here, once, to images of this size, as the published models do.

    Returns:
      The module and its parameters (nested, float32).

    Raises:
      UserError: files that are missing or damaged, another architecture, tensors that are missing or mis-shaped.
    """
    published = read_config(folder, family)
    state = _without_prefix(read_tensors(folder / TENSORS), family.prefix)
    params = import_tensors(
        state,
        family.rules,
        published,
        image_size=published.image_size,
        model=f"the network that {folder / CONFIG} describes",
    )
    module = published.clone(image_size=image_size)
    params["positions"] = interpolate_positions(
        params["positions"], image_size // module.patch_size, antialias=family.antialias
    )
    return module, params


def read_config(folder: Path, family: Family) -> ViT:
    """Returns the module that config.json describes, for images of the size it was trained on.

    Raises:
      UserError: no such file, or a network that this module cannot compute.
    """
    import transformers

    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"There is no {path}: give a folder with {CONFIG} and {TENSORS} as the hub publishes them.")
    classes = {each.model_type: each for each in (getattr(transformers, name) for name in family.config_classes)}
    try:
        fields = json.loads(path.read_text())
        config_class = classes[fields["model_type"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} describes no network of type {', '.join(classes)}.") from error
    try:
        config = config_class.from_dict(fields)
    except Exception as error:  # transformers raises anything for fields of other types
        raise UserError(f"{path} is damaged ({error}): get it again.") from error
    config = getattr(config, "vision_config", config)
    for name, rule in _SIZES.items():
        if hasattr(config, name):
            rule.check(f"{path}: {name}", getattr(config, name))
    _check_supported(config, path)
    return family.build(config)


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


def _without_prefix(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Returns the tensors that the class token needs, named and shaped alike whichever model was saved around them."""
    if any(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(UNUSED)}
    for name in BATCH_AXES.keys() & state.keys():
        axes = BATCH_AXES[name]
        if state[name].shape[:axes] == (1,) * axes:
            state[name] = state[name].reshape(state[name].shape[axes:])
    return state


def interpolate_positions(
    positions: Float[np.ndarray, "T D"], grid: int, *, antialias: bool
) -> Float[np.ndarray, "T2 D"]:
    """Learned positions of a class token and a square grid, the grid's interpolated (bicubic) to another size."""
    learned = math.isqrt(len(positions) - 1)
    if learned == grid:
        return positions
    matrix = bicubic_matrix(learned, grid, antialias=antialias)
    table = positions[1:].astype(np.float64).reshape(learned, learned, -1)
    table = np.einsum("ri,cj,ijd->rcd", matrix, matrix, table, optimize=True)
    return np.concatenate([positions[:1], table.reshape(grid * grid, -1).astype(np.float32)])


def bicubic_matrix(size: int, new_size: int, *, antialias: bool) -> Float[np.ndarray, "{new_size} {size}"]:
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
