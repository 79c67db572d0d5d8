"""A model's fields: the plain dict, which JSON can hold, that is saved beside its parameters.

`model_kinds` is the table of module classes by the kind that `model.json` names. A class of your own joins it under the
decorator `@model_kinds("name")`. Its class attribute `tables`, if it has one, holds the tables whose rows fields name.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fqgan_jax.config.defaults import field_rules
from fqgan_jax.config.registry import Registry, nearest
from fqgan_jax.config.rules import Either, Many, Nothing, Rule, Whole, check_fields, with_tuples
from fqgan_jax.errors import UserError
from fqgan_jax.models.far import FAR
from fqgan_jax.models.field_history import is_unset
from fqgan_jax.models.fqgan import FQGAN

model_kinds: Registry[type[nn.Module]] = Registry("kind of model")
model_kinds("tokenizer")(FQGAN)
model_kinds("generator")(FAR)

# What fields may be that no config has, because they follow from the data or from the tokenizer.
_MODULE_RULES = {
    "grid": Many(Whole(1, 2**12), (2,)),
    "feature_widths": Many(Either((Nothing(), Whole(1, 2**16)))),
    "num_classes": Whole(1, 2**24),
    "num_codebooks": Whole(1, 64),
    "codebook_size": Whole(2, 2**24),
    "entry_dim": Whole(0, 2**12),
}

# Fields that change how a module computes or is trained, but not its result.
_WITHOUT_EFFECT = ("remat", "unroll", "chunk_tokens", "gradient", "nested")


def downsampling(multipliers: Sequence[int]) -> int:
    """Returns f, from the multipliers of the levels."""
    return 2 ** (len(multipliers) - 1)


def module_fields(module: nn.Module) -> dict[str, Any]:
    """Returns the fields that describe a module, for JSON; the inverse of `build_module`."""
    return {field.name: _to_json(getattr(module, field.name)) for field in _fields(type(module))}


def identifying_fields(module: nn.Module) -> dict[str, Any]:
    """Returns the fields that say what a module computes; a model's fingerprint is a hash of them and its parameters.

    Fields that were added after the first version count only if they differ from their default, so that the
    fingerprints of existing models stay.
    """
    return {
        field.name: _to_json(getattr(module, field.name))
        for field in _fields(type(module))
        if field.name not in _WITHOUT_EFFECT and not is_unset(module, field)
    }


def build_module(kind: str, fields: Mapping[str, Any]) -> nn.Module:
    """Builds the module of a kind of model from its fields, which may come from JSON.

    Raises:
      UserError: no such kind, a field that this kind of model does not have, or one that names a row that nothing has
        added.
    """
    module_class = model_kinds[kind]
    known = [field.name for field in _fields(module_class)]
    for name in fields:
        if name not in known:
            raise UserError(
                f"A {kind} has no field {name!r}{nearest(name, known)} "
                "If a newer version of fqgan_jax wrote this model, update fqgan_jax."
            )
    values = {name: with_tuples(value) for name, value in fields.items()}
    check_fields(values, module_rules(kind), where="model.")
    if "dtype" in values:
        values["dtype"] = jnp.dtype(values["dtype"])
    try:
        module = module_class(**values)
    except TypeError as error:  # a field without a default
        raise UserError(f"The fields of this {kind} are incomplete ({error}): restore its description.") from error
    for name, table in getattr(module_class, "tables", {}).items():
        table.check(getattr(module, name), f"model.{name}")
    return module


def module_rules(kind: str) -> dict[str, Rule]:
    """Returns what each field of a kind's modules may be; without those of your own kinds, which check themselves."""
    if kind not in ("tokenizer", "generator"):
        return {}
    rules = {path.removeprefix("model."): rule for path, rule in field_rules(kind).items() if path.startswith("model.")}
    return rules | _MODULE_RULES


def model_kind(module: nn.Module) -> str:
    """Returns the kind of model that a module is.

    Raises:
      UserError: its class is no row of `model_kinds`.
    """
    for kind, module_class in model_kinds.items():
        if type(module) is module_class:
            return kind
    raise UserError(
        f"{type(module).__name__} is no kind of model: add it with the decorator @model_kinds(NAME) of "
        "fqgan_jax.models.fields."
    )


def _fields(module_class: type[nn.Module]) -> Iterator[dataclasses.Field]:
    return (field for field in dataclasses.fields(module_class) if field.name not in ("parent", "name"))


def _to_json(value: Any) -> Any:
    return jnp.dtype(value).name if isinstance(value, type | jnp.dtype) else value
