"""Published checkpoints (PyTorch names and layouts) to our parameters and back; arrays are numpy's.

    fields = tokenizer_config({name: tensor.shape for name, tensor in state.items()})
    module = FQGAN(**fields)
    params = import_tokenizer(state, module)  # module.apply({"params": params}, images)
    state = export_tokenizer(params, module)

`import_published` does this for a file; a row of `published_kinds` says how, for each kind of model.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.checkpoints import ModelDescription
from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError
from fqgan_jax.interop.checkpoint_files import CheckpointFile
from fqgan_jax.interop.correspondence import (
    Entry,
    check_tensors,
    correspondence,
    first_names,
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
    "import_published",
    "import_tokenizer",
    "published_kind",
    "published_kinds",
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedKind:
    """How models of one kind stand in published files.

    Attributes:
      infer_fields: gives the module's fields from the tensors' shapes; its keywords are what shapes do not tell.
      import_params: gives the parameters of a module from published tensors.
      export_params: the inverse of `import_params`.
      tensor: the name of a tensor that every file of this kind holds and no file of another kind.
    """

    infer_fields: Callable[..., dict[str, Any]]
    import_params: Callable[[Mapping[str, np.ndarray], nn.Module], dict]
    export_params: Callable[[Mapping, nn.Module], dict[str, np.ndarray]]
    tensor: str


published_kinds: Registry[PublishedKind] = Registry("published kind of model")
published_kinds.add(
    "tokenizer",
    PublishedKind(
        infer_fields=tokenizer_config,
        import_params=import_tokenizer,
        export_params=export_tokenizer,
        tensor="encoder.conv_in.weight",
    ),
)
published_kinds.add(
    "generator",
    PublishedKind(
        infer_fields=far_config, import_params=import_far, export_params=export_far, tensor="tok_embeddings_1.weight"
    ),
)


def published_kind(file: CheckpointFile, path: Path) -> str:
    """Returns the kind of model in a checkpoint file: what our own export wrote, or what its tensors' names tell.

    Raises:
      UserError: the tensors are of no kind of model that is known.
    """
    if "kind" in file.description:
        return file.description["kind"]
    for kind, row in published_kinds.items():
        if row.tensor in file.tensors:
            return kind
    raise UserError(
        f"{path} holds no model that is known ({', '.join(published_kinds)}); its tensors: "
        f"{first_names(list(file.tensors))}."
    )


def import_published(
    file: CheckpointFile, kind: str, overrides: Mapping[str, Any]
) -> tuple[ModelDescription, dict[str, Any]]:
    """Returns the description and the parameters of a model of this kind in a checkpoint file.

    What the shapes do not tell comes from `overrides`, from the description if our own export left one, or is as
    published.

    Raises:
      UserError: the tensors are not those of a model of this kind.
    """
    row = published_kinds[kind]
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    written = file.description if file.description.get("kind") == kind else {"kind": kind}
    known = {"dtype": "float32", **written.get("fields", {}), **overrides}
    keywords = {name: known[name] for name in row.infer_fields.__kwdefaults__ if name in known}
    fields = row.infer_fields(shapes, **keywords) | known
    description = ModelDescription.from_json({**written, "fields": fields})
    return description, row.import_params(file.tensors, build_module(kind, fields))


def _usage_buffers(module: FQGAN) -> list[str]:
    return [USAGE_BUFFER.format(**names) for names in codebook_names(module.num_codebooks)]
