"""Evaluation of sets of images, tokenizers and generators.

The tables of metrics are in `fqgan_jax.evaluation.metrics`. The public names are loaded on first use, so that a file
that adds a metric does not import image sources and models.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fqgan_jax.evaluation.generator import draw_samples, evaluate_generator
    from fqgan_jax.evaluation.image_set import ImageSet, open_images
    from fqgan_jax.evaluation.images import evaluate_images
    from fqgan_jax.evaluation.networks import EvaluationNetworks, load_networks
    from fqgan_jax.evaluation.protocol import Evaluation, Measurement
    from fqgan_jax.evaluation.reference import open_reference
    from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer

__all__ = [
    "Evaluation",
    "EvaluationNetworks",
    "ImageSet",
    "Measurement",
    "draw_samples",
    "evaluate_generator",
    "evaluate_images",
    "evaluate_tokenizer",
    "load_networks",
    "open_images",
    "open_reference",
]

_MODULES = {
    "generator": ("draw_samples", "evaluate_generator"),
    "image_set": ("ImageSet", "open_images"),
    "images": ("evaluate_images",),
    "networks": ("EvaluationNetworks", "load_networks"),
    "protocol": ("Evaluation", "Measurement"),
    "reference": ("open_reference",),
    "tokenizer": ("evaluate_tokenizer",),
}


def __getattr__(name: str):
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"fqgan_jax.evaluation.{module}"), name)
    raise AttributeError(f"module 'fqgan_jax.evaluation' has no attribute {name!r}")
