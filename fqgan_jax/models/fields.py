"""A model's fields: the plain dict, which JSON can hold, that is saved beside its parameters."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN


def downsampling(multipliers) -> int:
    """f, from the number of levels."""
    return 2 ** (len(multipliers) - 1)


def module_fields(module: nn.Module) -> dict:
    """The fields that describe a module, for JSON; the inverse of `build_tokenizer` and `build_generator`."""
    skipped = ("parent", "name")
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.name not in skipped}
    return fields | {"dtype": jnp.dtype(fields["dtype"]).name}


def build_tokenizer(fields: dict) -> FQGAN:
    """The module, from fields that may come from JSON."""
    return FQGAN(**_from_json(fields))


def build_generator(fields: dict) -> FAR:
    """The module, from fields that may come from JSON."""
    return FAR(**_from_json(fields))


def _from_json(fields: dict) -> dict:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return fields | {"dtype": jnp.dtype(fields["dtype"])}
