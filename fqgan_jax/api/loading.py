"""Loads trained models from work folders, native export folders and published checkpoint files."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from fqgan_jax.api.generator import Generator
from fqgan_jax.api.model import Model, wrappers
from fqgan_jax.api.tokenizer import Tokenizer
from fqgan_jax.checkpoints import (
    CheckpointName,
    is_export_folder,
    load_inference_params,
    read_description,
    read_export,
)
from fqgan_jax.errors import UserError
from fqgan_jax.hub import local_checkpoint
from fqgan_jax.interop import import_published, published_kind, published_kinds
from fqgan_jax.interop.checkpoint_files import is_checkpoint_file, read_checkpoint_file
from fqgan_jax.interop.correspondence import check_params, parameter_shapes
from fqgan_jax.models.fields import model_kinds
from fqgan_jax.storage import as_path


def load_tokenizer(path: str | Path, **overrides: Any) -> Tokenizer:
    """Loads a tokenizer from a work folder, a native export folder or a published checkpoint file.

    Args:
      path: a work folder of `fqgan train` (its newest checkpoint; `WORKDIR@best`, `WORKDIR@5000` for another), an
        export folder, or a `.safetensors` or PyTorch file with the published names; sizes are read from the tensors'
        shapes, its moving average is preferred. `hf:OWNER/REPO[@REVISION][/FILE]` is an export folder or a file on
        the Hugging Face hub; published tokenizers have names, as in `fqgan-dual-f16` (`fqgan weights list`).
      **overrides: the module fields in `Tokenizer.overrides`. A file takes the published value for each that is not
        given: the square grid of the learned positions, 8 adapter_heads, 8 feature_heads, normalized codes, 32
        norm_groups, float32.

    Raises:
      UserError: no tokenizer there, a damaged file, tensors that do not fit.
    """
    return cast(Tokenizer, _load(as_path(path), "tokenizer", overrides))


def load_generator(path: str | Path, **overrides: Any) -> Generator:
    """Loads a generator from a work folder, a native export folder or a published checkpoint file.

    Args:
      path: as in `load_tokenizer`.
      **overrides: the module fields in `Generator.overrides`. A file takes the published value for each that is not
        given: grid (16, 16), 16 num_heads at width 1024 and 20 at width 1280, dropout 0.1, float32.

    Raises:
      UserError: no generator there, a damaged file, tensors that do not fit.
    """
    return cast(Generator, _load(as_path(path), "generator", overrides))


def load_model(path: str | Path, **overrides: Any) -> Model:
    """Loads whichever model a path holds.

    Args:
      path: as in `load_tokenizer`.
      **overrides: as in `load_tokenizer` and `load_generator`.

    Returns:
      A `Tokenizer`, a `Generator`, or for other kinds of model their row of `wrappers`, else a plain `Model`.

    Raises:
      UserError: no model there, or one of a kind that no row of `models.fields.model_kinds` has.
    """
    return _load(as_path(path), None, overrides)


def _load(path: Path, kind: str | None, overrides: dict) -> Model:
    """Loads a model, which must be of this kind unless it is None."""
    path = local_checkpoint(path)
    folder = CheckpointName.parse(path).workdir
    if not folder.exists():
        raise UserError(
            f"There is no checkpoint {path}: give a work folder of fqgan train, an export folder or a checkpoint file."
        )
    is_file = is_checkpoint_file(path)
    if is_file:
        file = read_checkpoint_file(path)
        kind = published_kind(file, path) if kind is None else kind
        wrapper = _wrapper(kind, path, overrides)
        description, params = import_published(file, kind, overrides)
    else:
        description = read_description(folder)
        if kind not in (None, description.kind):
            raise UserError(f"{folder} holds a {description.kind}, but a {kind} is needed here.")
        wrapper = _wrapper(description.kind, folder, overrides)
        description = dataclasses.replace(description, fields={**description.fields, **overrides})
        params = read_export(path) if is_export_folder(path) else load_inference_params(path)[0]
    model = wrapper.from_description(description, params)
    if not is_file:  # the tensors of a file were checked by their published names
        row = published_kinds.get(model.kind)
        expected = None if row is None else parameter_shapes(model.module, *row.inputs(model.module))
        check_params(jax.device_get(params), expected, str(path))
    return dataclasses.replace(model, params=jax.tree.map(jnp.asarray, params))


def _wrapper(kind: str, path: Path, overrides: Iterable[str]) -> type[Model]:
    """The wrapper of a kind; UserError if there is no such kind, or an override that it does not take."""
    model_kinds.check(kind, f"The kind of model in {path}")
    wrapper = dict(wrappers).get(kind, Model)
    for name in overrides:
        if name not in wrapper.overrides:
            known = ", ".join(wrapper.overrides) or "nothing"
            raise UserError(f"A {kind} is not loaded with {name!r}: only {known} can be given.")
    return wrapper
