"""Fields that a module class got after its models were first saved."""

import dataclasses
from typing import Any

import flax.linen as nn

_ADDED_LATER = "added_later"


def added_later(default: Any) -> Any:
    """Declares a module field that older saved models lack; at its default it does not change their fingerprint."""
    return dataclasses.field(default=default, metadata={_ADDED_LATER: True})


def is_unset(module: nn.Module, field: dataclasses.Field) -> bool:
    """Whether a field was added later and has its default, so that the model is what an older version would build."""
    return _ADDED_LATER in field.metadata and getattr(module, field.name) == field.default
