"""The base class of the wrappers of trained models, and their table."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

import flax.linen as nn
import jax
from jaxtyping import Array, PyTree

from fqgan_jax.checkpoints import CheckpointName, ModelDescription, write_export
from fqgan_jax.config import Registry
from fqgan_jax.errors import UserError
from fqgan_jax.models.applying import apply
from fqgan_jax.models.fields import build_module, model_kind, module_fields
from fqgan_jax.storage import as_path

# A row is the wrapper of a kind of model, a subclass of `Model`; `models.fields.model_kinds` has its module. Kinds
# without a row here are wrapped by `Model`.
wrappers: Registry[type["Model"]] = Registry("kind of model")


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained module and its parameters.

    Attributes:
      module: the network.
      params: its parameters.
      class_names: names of the classes it was trained on, by label; empty if they are not known.
      overrides: module fields that can be changed when a model is loaded: those that cannot be
        inferred from the shapes of tensors, and those that do not affect the parameters.
    """

    module: nn.Module
    params: PyTree
    class_names: Sequence[str] = dataclasses.field(default=(), kw_only=True)

    overrides: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        """The kind of model: the name of its row in `model_kinds`."""
        return model_kind(self.module)

    @classmethod
    def from_description(cls, description: ModelDescription, params: PyTree) -> Self:
        """Builds the module of a description and wraps it."""
        module = build_module(description.kind, description.fields)
        return cls(module, params, class_names=description.class_names)

    @property
    def description(self) -> ModelDescription:
        """The description of the model for `model.json`; the inverse of `from_description`."""
        return ModelDescription(kind=self.kind, fields=module_fields(self.module), class_names=tuple(self.class_names))

    def save(self, folder: str | Path) -> None:
        """Writes a native export folder; one that exists is overwritten.

        Raises:
          UserError: the folder cannot be made, or is the work folder of a run.
        """
        folder = as_path(folder)
        if CheckpointName(workdir=folder).is_of_a_run:
            raise UserError(f"{folder} is the work folder of a run: save the {self.kind} to another folder.")
        try:
            write_export(folder, self.description, self.params)
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}. Save to another folder.") from error


@partial(jax.jit, static_argnames=("module", "method"))
def apply_method(module: nn.Module, params: PyTree, *inputs: Array, method: str) -> Array:
    """Calls a method of a module with these parameters, compiled."""
    return apply(module, params, *inputs, method=method)
