"""Rows of registries that tests replace."""

import dataclasses

import pytest

from fqgan_jax.config import Registry
from fqgan_jax.pretrained.weights import networks

LITE = networks["efficientnet-lite0"]


def replace_row(patch: pytest.MonkeyPatch, registry: Registry, name: str, row: object) -> None:
    """Puts another row in the place of one until the test ends."""
    patch.setitem(registry._rows, name, row)


def replace_package(patch: pytest.MonkeyPatch, file: str = "no_such_package/weights.pth", sha256: str = "") -> None:
    """Lets the weights of EfficientNet-Lite0 come from another package, by default one that is not installed."""
    replace_row(patch, networks, LITE.name, dataclasses.replace(LITE, file=file, sha256=sha256))
