"""A model's fields: the plain dict, which JSON can hold, that is saved beside its parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fqgan_jax.config.registry import Registry, nearest
from fqgan_jax.errors import UserError
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN

# A row is the module class of a kind of model; `model.json` names the kind.
model_kinds: Registry[type[nn.Module]] = Registry("kind of model")
model_kinds("tokenizer")(FQGAN)
model_kinds("generator")(FAR)


def downsampling(multipliers) -> int:
    """f, from the number of levels."""
    return 2 ** (len(multipliers) - 1)


def module_fields(module: nn.Module) -> dict:
    """The fields that describe a module, for JSON; the inverse of `build_module`."""
    skipped = ("parent", "name")
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in skipped}
    return fields | {"dtype": jnp.dtype(fields["dtype"]).name}


def build_module(kind: str, fields: Mapping[str, Any]) -> nn.Module:
    """Builds the module of a kind of model from its fields, which may come from JSON.

    Raises:
      UserError: no such kind, or a field that this kind of model does not have.
    """
    module_class = model_kinds[kind]
    known = {field.name for field in dataclasses.fields(module_class)}
    for name in fields:
        if name not in known:
            raise UserError(
                f"A {kind} has no field {name!r}{nearest(name, sorted(known - {'parent', 'name'}))} "
                "A newer version of fqgan_jax may have written this description: update it."
            )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return module_class(**(values | {"dtype": jnp.dtype(values["dtype"])}))
