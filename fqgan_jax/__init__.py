"""The FQGAN tokenizer and the FAR generator in JAX (arXiv 2411.16681)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fqgan_jax.api import Generator, Tokenizer, load_generator, load_model, load_tokenizer

__all__ = ["Generator", "Tokenizer", "load_generator", "load_model", "load_tokenizer"]


def __getattr__(name: str):
    """Loads the public names on first use, so that `import fqgan_jax` stays fast."""
    if name in __all__:
        from fqgan_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'fqgan_jax' has no attribute {name!r}")
