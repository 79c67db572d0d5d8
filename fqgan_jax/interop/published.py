"""Published checkpoints (PyTorch names and layouts) to parameters and back; arrays are NumPy's.

    fields = infer_fields("tokenizer", {name: tensor.shape for name, tensor in state.items()})
    module = FQGAN(**fields)
    params = import_params(state, module)  # module.apply({"params": params}, images)
    state = export_params(params, module)

`import_published` does this for a file. A row of `published_kinds` says how, for each kind of model.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
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
    Rule,
    Shape,
    check_tensors,
    correspondence,
    first_names,
    gather,
    parameter_shapes,
    published_row,
    scatter,
)
from fqgan_jax.interop.far_names import far_in_published_terms, far_rules, infer_generator_fields, table_names
from fqgan_jax.interop.tokenizer_names import (
    codebook_names,
    infer_tokenizer_fields,
    tokenizer_in_published_terms,
    tokenizer_rules,
    usage_buffers,
)
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import build_module, downsampling, model_kind
from fqgan_jax.models.fqgan import FQGAN


def _unchanged(module: nn.Module, params: Mapping) -> tuple[nn.Module, Mapping]:
    return module, params


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedKind:
    """How models of one kind are written in published files.

    Attributes:
      tensor: name of a tensor that every file of this kind holds and no file of another kind.
      infer_fields: returns the module's fields, given its tensors' shapes by name; its keyword-only parameters are
        fields that cannot be inferred from shapes.
      rules: returns the names of a module's parameters.
      codebook_names: returns, per sub-codebook of a module, the parts of names that depend on it.
      inputs: returns the shapes of the arguments with which a module is initialized.
      buffers: returns the published tensors that are no parameters; they are ignored when a file is read.
      in_published_terms: returns module and parameters of a model that computes the same and has published names, if
        there is one; else those given.
    """

    tensor: str
    infer_fields: Callable[..., dict[str, Any]]
    rules: Callable[..., Sequence[Rule]]
    codebook_names: Callable[..., Sequence[Mapping[str, str]]]
    inputs: Callable[..., tuple[jax.ShapeDtypeStruct, ...]]
    buffers: Callable[..., dict[str, np.ndarray]]
    in_published_terms: Callable[..., tuple[nn.Module, Mapping]] = _unchanged


published_kinds: Registry[PublishedKind] = Registry("kind of model")


def published_entries(module: nn.Module) -> list[Entry]:
    """Returns one entry per published tensor of a module (name, shape, position in the parameters), without buffers.

    Raises:
      UserError: this kind of model, or a part that it was built with, has no published names.
    """
    row = published_row(published_kinds, model_kind(module))
    shapes = parameter_shapes(module, *row.inputs(module))
    return correspondence(row.rules(module), shapes, row.codebook_names(module))


def import_params(state: Mapping[str, np.ndarray], module: nn.Module) -> dict:
    """Returns the parameters of a module (nested, float32) from published tensors.

    Raises:
      UserError: tensors are missing, unexpected or of another shape, or the module has no published names.
    """
    kind = model_kind(module)
    entries = published_entries(module)
    buffers = published_kinds[kind].buffers(module)
    check_tensors(entries, {name: tensor for name, tensor in state.items() if name not in buffers}, f"this {kind}")
    return scatter(entries, state)


def export_params(params: Mapping, module: nn.Module) -> dict[str, np.ndarray]:
    """Returns published tensors of a module's parameters, with fresh buffers; the inverse of `import_params`."""
    tensors = gather(published_entries(module), params)
    return tensors | published_kinds[model_kind(module)].buffers(module)


def in_published_terms(module: nn.Module, params: Mapping) -> tuple[nn.Module, Mapping]:
    """Returns a model that computes the same and has published names, if there is one; else the one given."""
    row = published_kinds.get(model_kind(module))
    return (module, params) if row is None else row.in_published_terms(module, params)


def infer_fields(kind: str, shapes: Mapping[str, Shape], **known: Any) -> dict[str, Any]:
    """Returns the fields of a module, given its published tensors.

    Args:
      kind: kind of model.
      shapes: shape of each tensor by name.
      **known: known fields; those that cannot be inferred from the shapes are used, others ignored.

    Raises:
      UserError: the tensors are not those of such a model, or a field that is not given cannot be inferred from them.
    """
    infer = published_row(published_kinds, kind).infer_fields
    parameters = inspect.signature(infer).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    return infer(shapes, **{name: known[name] for name in names if name in known})


def published_kind(file: CheckpointFile, path: Path) -> str:
    """Returns the kind of model in a checkpoint file: from an export's description, or inferred from the names.

    Raises:
      UserError: the tensors are of no known kind of model.
    """
    if "kind" in file.description:
        return file.description["kind"]
    for kind, row in published_kinds.items():
        if row.tensor in file.tensors:
            return kind
    raise UserError(
        f"{path} holds no known kind of model ({', '.join(published_kinds)}); its tensors: "
        f"{first_names(list(file.tensors))}."
    )


def import_published(
    file: CheckpointFile, kind: str, overrides: Mapping[str, Any]
) -> tuple[ModelDescription, dict[str, Any]]:
    """Returns the description and the parameters of a model of this kind in a checkpoint file.

    Fields that cannot be inferred from the shapes come from `overrides`, from the description if an export of fqgan_jax
    wrote the file, or are those of the published models.

    Raises:
      UserError: the tensors are not those of a model of this kind.
    """
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    written: Mapping[str, Any] = file.description if file.description.get("kind") == kind else {"kind": kind}
    known = {"dtype": "float32", **written.get("fields", {}), **overrides}
    fields = infer_fields(kind, shapes, **known) | known
    description = ModelDescription.from_json({**written, "fields": fields})
    return description, import_params(file.tensors, build_module(kind, fields))


def _tokenizer_inputs(module: FQGAN) -> tuple[jax.ShapeDtypeStruct, ...]:
    (h, w), f = module.grid, downsampling(module.multipliers)
    return (jax.ShapeDtypeStruct((1, h * f, w * f, 3), jnp.float32),)


def _generator_inputs(module: FAR) -> tuple[jax.ShapeDtypeStruct, ...]:
    (h, w), K = module.grid, module.num_codebooks
    return jax.ShapeDtypeStruct((1, h * w, K), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)


published_kinds.add(
    "tokenizer",
    PublishedKind(
        tensor="encoder.conv_in.weight",
        infer_fields=infer_tokenizer_fields,
        rules=tokenizer_rules,
        codebook_names=lambda module: codebook_names(module.num_codebooks),
        inputs=_tokenizer_inputs,
        buffers=usage_buffers,
        in_published_terms=tokenizer_in_published_terms,
    ),
)
published_kinds.add(
    "generator",
    PublishedKind(
        tensor="tok_embeddings_1.weight",
        infer_fields=infer_generator_fields,
        rules=far_rules,
        codebook_names=lambda module: table_names(module.num_codebooks),
        inputs=_generator_inputs,
        buffers=lambda _: {},
        in_published_terms=far_in_published_terms,
    ),
)
