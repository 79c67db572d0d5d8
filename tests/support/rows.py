"""Rows of registries that tests replace."""

import pytest

from fqgan_jax.config import Registry


def replace_row(patch: pytest.MonkeyPatch, registry: Registry, name: str, row: object) -> None:
    """Puts another row in the place of one until the test ends."""
    patch.setitem(registry._rows, name, row)
