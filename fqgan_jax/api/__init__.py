"""Trained models as Python objects: `load_tokenizer`, `load_generator`, and `load_model` for either."""

from fqgan_jax.api.generator import Generator
from fqgan_jax.api.loading import load_generator, load_model, load_tokenizer
from fqgan_jax.api.model import Model, wrappers
from fqgan_jax.api.tokenizer import Tokenizer

__all__ = ["Generator", "Model", "Tokenizer", "load_generator", "load_model", "load_tokenizer", "wrappers"]
