"""Published checkpoints (PyTorch names and layouts) to our parameters and back; arrays are numpy's.

    fields = tokenizer_config({name: tensor.shape for name, tensor in state.items()})
    module = FQGAN(**fields)
    params = import_tokenizer(state, module)  # module.apply({"params": params}, images)
    state = export_tokenizer(params, module)

`load_published` does this for a file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.interop.checkpoint_files import read_checkpoint_file
from fqgan_jax.interop.correspondence import (
    Entry,
    check_tensors,
    correspondence,
    gather,
    parameter_shapes,
    scatter,
)
from fqgan_jax.interop.discriminator_names import (
    DISCRIMINATOR_BUFFERS,
    PATCH_RULES,
    STYLE_RULES,
    discriminator_buffers,
)
from fqgan_jax.interop.far_names import FAR_RULES, far_config, table_names
from fqgan_jax.interop.tokenizer_names import (
    TOKENIZER_RULES,
    USAGE_BUFFER,
    USAGE_BUFFER_SIZE,
    codebook_names,
    tokenizer_config,
)
from fqgan_jax.models.discriminators import PatchDiscriminator
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import build_module, downsampling
from fqgan_jax.models.fqgan import FQGAN

__all__ = [
    "discriminator_entries",
    "export_discriminator",
    "export_far",
    "export_tokenizer",
    "far_config",
    "far_entries",
    "import_discriminator",
    "import_far",
    "import_tokenizer",
    "load_published",
    "tokenizer_config",
    "tokenizer_entries",
]


def tokenizer_entries(module: FQGAN) -> list[Entry]:
    """One entry a published tensor of the tokenizer (name, published shape, place in our parameters), buffers apart."""
    f = downsampling(module.multipliers)
    images = jax.ShapeDtypeStruct((1, module.grid[0] * f, module.grid[1] * f, 3), jnp.float32)
    return correspondence(TOKENIZER_RULES, parameter_shapes(module, images), codebook_names(module.num_codebooks))


def import_tokenizer(state: Mapping[str, np.ndarray], module: FQGAN) -> dict:
    """Parameters of `module` (nested, float32) from published tensors.

    Usage buffers (`codebook_used`) are ignored. UserError where tensors are missing, unexpected or of another shape.
    """
    buffers = _usage_buffers(module)
    state = {name: tensor for name, tensor in state.items() if name not in buffers}
    entries = tokenizer_entries(module)
    check_tensors(entries, state, "this tokenizer")
    return scatter(entries, state)


def export_tokenizer(params: Mapping, module: FQGAN) -> dict[str, np.ndarray]:
    """Published tensors of the tokenizer's parameters, the inverse of `import_tokenizer`, with empty usage buffers."""
    tensors = gather(tokenizer_entries(module), params)
    return tensors | {name: np.zeros(USAGE_BUFFER_SIZE, np.float32) for name in _usage_buffers(module)}


def far_entries(module: FAR) -> list[Entry]:
    """One entry a published tensor of the generator (name, published shape, place in our parameters)."""
    codes = jax.ShapeDtypeStruct((1, module.grid[0] * module.grid[1], module.num_codebooks), jnp.int32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    return correspondence(FAR_RULES, parameter_shapes(module, codes, labels), table_names(module.num_codebooks))


def import_far(state: Mapping[str, np.ndarray], module: FAR) -> dict:
    """Parameters of `module` (nested, float32) from published tensors.

    UserError where tensors are missing, unexpected or of another shape.
    """
    entries = far_entries(module)
    check_tensors(entries, state, "this generator")
    return scatter(entries, state)


def export_far(params: Mapping, module: FAR) -> dict[str, np.ndarray]:
    """Published tensors of the generator's parameters, the inverse of `import_far`."""
    return gather(far_entries(module), params)


def discriminator_entries(module: nn.Module, image_size: int) -> list[Entry]:
    """One entry a published tensor of a discriminator of images of this side, buffers apart."""
    rules = PATCH_RULES if isinstance(module, PatchDiscriminator) else STYLE_RULES
    images = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32)
    return correspondence(rules, parameter_shapes(module, images), ())


def import_discriminator(state: Mapping[str, np.ndarray], module: nn.Module, image_size: int) -> dict:
    """Parameters of a discriminator (nested, float32) from published tensors.

    Buffers (running averages, the blur's filter) are ignored: they take no part in training. UserError where tensors
    are missing, unexpected or of another shape.
    """
    state = {name: tensor for name, tensor in state.items() if not name.endswith(DISCRIMINATOR_BUFFERS)}
    entries = discriminator_entries(module, image_size)
    check_tensors(entries, state, "this discriminator")
    return scatter(entries, state)


def export_discriminator(params: Mapping, module: nn.Module, image_size: int) -> dict[str, np.ndarray]:
    """Published tensors of a discriminator's parameters, the inverse of `import_discriminator`, with fresh buffers."""
    tensors = gather(discriminator_entries(module, image_size), params)
    return tensors | discriminator_buffers(tensors)


def load_published(path: Path, kind: str, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict]:
    """The description (as in `model.json`) and the parameters of a checkpoint file.

    What the shapes do not tell comes from `overrides`, from the description where our own export left one, or is as
    published. Raises UserError where the file is damaged or its tensors are not those of a model of this kind.
    """
    tensors, description = read_checkpoint_file(path)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    infer, load = {
        "tokenizer": (tokenizer_config, import_tokenizer),
        "generator": (far_config, import_far),
    }[kind]
    written = description.get("fields", {}) if description.get("kind") == kind else {}
    known = {"dtype": "float32"} | written | overrides
    fields = infer(shapes, **{name: known[name] for name in infer.__kwdefaults__ if name in known}) | known
    description = {"class_names": (), "tokenizer": ""} | description | {"fields": fields}
    return description, load(tensors, build_module(kind, fields))


def _usage_buffers(module: FQGAN) -> list[str]:
    return [USAGE_BUFFER.format(**names) for names in codebook_names(module.num_codebooks)]
