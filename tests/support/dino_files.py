"""A small DINOv2 as the hub publishes it, written without PyTorch."""

import json
from pathlib import Path

from safetensors.numpy import save_file

from fqgan_jax.files import sha256_of
from fqgan_jax.pretrained.fetching import fetch
from fqgan_jax.pretrained.teachers import DeviceTeacher, teachers, vit_teacher
from fqgan_jax.pretrained.vit import dino_vit
from fqgan_jax.pretrained.vit_files import DINOV2
from support import golden_data

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
DINO = SMALL | {"patch_size": 7, "image_size": 63, "mlp_ratio": 2}


def write_dino_files(folder: Path, sizes: dict = DINO) -> Path:
    """config.json and model.safetensors in a folder; the tensors are drawn by name."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2"} | sizes))
    D, side, patch = sizes["hidden_size"], sizes["image_size"] // sizes["patch_size"], sizes["patch_size"]
    hidden = D * sizes["mlp_ratio"]
    vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "layer_scale1.lambda1")
    layer = dict.fromkeys((*vectors, "layer_scale2.lambda1"), (D,))
    for name in ("attention.query", "attention.key", "attention.value", "output.dense"):
        layer |= {f"attention.{name}.weight": (D, D), f"attention.{name}.bias": (D,)}
    layer |= {"mlp.fc1.weight": (hidden, D), "mlp.fc1.bias": (hidden,), "mlp.fc2.weight": (D, hidden)}
    layer |= {"mlp.fc2.bias": (D,)}
    shapes = {
        "embeddings.cls_token": (1, 1, D),
        "embeddings.mask_token": (1, D),
        "embeddings.position_embeddings": (1, 1 + side * side, D),
        "embeddings.patch_embeddings.projection.weight": (D, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (D,),
        "layernorm.weight": (D,),
        "layernorm.bias": (D,),
    }
    for i in range(sizes["num_hidden_layers"]):
        shapes |= {f"encoder.layer.{i}.{name}": shape for name, shape in layer.items()}
    tensors = {name: golden_data.weight(name, shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder


def small_teacher() -> DeviceTeacher:
    """dinov2-small, far smaller."""
    module = dino_vit(
        width=DINO["hidden_size"],
        depth=DINO["num_hidden_layers"],
        num_heads=DINO["num_attention_heads"],
        patch_size=DINO["patch_size"],
        mlp_width=DINO["hidden_size"] * DINO["mlp_ratio"],
        image_size=28,
    )
    return vit_teacher(teachers["dinov2-small"].weights, family=DINOV2, module=module)


def fetch_small_teacher(folder: Path) -> None:
    """Puts its weights into the cache, by way of a folder."""
    file = write_dino_files(folder) / "model.safetensors"
    fetch("dinov2-small", file, sha256_of(file))
