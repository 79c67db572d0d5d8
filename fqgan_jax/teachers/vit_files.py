"""CLIP and DINOv2 as the hub publishes them (config.json and model.safetensors) to our module and parameters."""

import json
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float

from fqgan_jax.errors import UserError
from fqgan_jax.interop.correspondence import Entry, Rule, check_tensors, correspondence, layer, scatter, within
from fqgan_jax.teachers.tensors import CONFIG, TENSORS, read_tensors
from fqgan_jax.teachers.vit import ACTIVATIONS, ViT, clip_vit, dino_vit

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
    *within("blocks", "encoder.layers.{block}", _CLIP_BLOCK, ("block",)),
)
DINO_RULES = (
    Rule("class_token", "embeddings.cls_token"),
    Rule("positions", "embeddings.position_embeddings"),
    Rule("registers", "embeddings.register_tokens"),
    *layer("patches", "embeddings.patch_embeddings.projection."),
    *within("blocks", "encoder.layer.{block}", _DINO_BLOCK, ("block",)),
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
    rules = CLIP_RULES if published.norm_in else DINO_RULES
    entries = vit_entries(published, rules)
    state = without_prefix(read_tensors(folder / TENSORS))
    check_tensors(entries, state, f"the network that {folder / CONFIG} describes")
    params = scatter(entries, state)
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
    wrong = [
        f"{name}={getattr(config, name)!r}"
        for name, accepted in {
            "hidden_act": tuple(ACTIVATIONS),
            "num_channels": (3,),
            "qkv_bias": (True,),
            "use_swiglu_ffn": (False,),
        }.items()
        if getattr(config, name, accepted[0]) not in accepted
    ]
    if wrong:
        raise UserError(f"{path} has {', '.join(wrong)}, which is not supported here.")
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.patch_size)
    common = {name: getattr(config, ours) for name, ours in _FIELDS.items()}
    if config.model_type == CLIPVisionConfig.model_type:
        return clip_vit(*sizes, mlp_width=config.intermediate_size, **common)
    registers = getattr(config, "num_register_tokens", 0)
    return dino_vit(*sizes, mlp_width=config.hidden_size * config.mlp_ratio, num_registers=registers, **common)


_FIELDS = {"image_size": "image_size", "activation": "hidden_act", "norm_eps": "layer_norm_eps"}


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


def vit_entries(module: ViT, rules: tuple[Rule, ...]) -> list[Entry]:
    """One entry a published tensor of the module (prefix and leading axes of one removed)."""
    images = jax.ShapeDtypeStruct((1, module.image_size, module.image_size, 3), jnp.float32)
    return correspondence(rules, parameter_shapes(module, images), ())


def parameter_shapes(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> dict[str, tuple[int, ...]]:
    """Path to shape of every parameter, computing nothing."""
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}


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
