"""Tokenizers and generators of a few thousand random parameters, for any K; each is made once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fqgan import FQGAN

IMAGE_SIZE = 8


@functools.cache
def tiny_tokenizer(num_codebooks: int, factorization: str = "adapters", **fields) -> Tokenizer:
    """8x8 images, f = 2; every other sub-codebook has a feature head."""
    widths = (None, *(8 * (1 + k % 2) for k in range(1, num_codebooks)))
    z_channels = 4 * num_codebooks if factorization == "split" else 8
    sizes = {"codebook_size": 12, "code_dim": 4, "grid": (4, 4), "base_width": 8, "multipliers": (1, 2)}
    sizes |= {"num_blocks": 1, "norm_groups": 4, "z_channels": z_channels, "adapter_depth": 2, "adapter_heads": 2}
    sizes |= {"feature_depth": 1, "feature_heads": 2, "feature_widths": widths, "factorization": factorization}
    module = FQGAN(num_codebooks=num_codebooks, **(sizes | fields))
    images = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
    return Tokenizer(module, random_params(module, images))


@functools.cache
def tiny_generator(num_codebooks: int) -> Generator:
    """4x4 positions, three classes."""
    sizes = {"codebook_size": 12, "num_classes": 3, "grid": (4, 4), "swiglu_multiple": 16}
    module = FAR(num_codebooks=num_codebooks, width=16, depth=2, num_heads=2, head_depth=1, **sizes)
    codes = jax.ShapeDtypeStruct((1, 16, num_codebooks), jnp.int32)
    params = random_params(module, codes, jax.ShapeDtypeStruct((1,), jnp.int32))
    return Generator(module, params, class_names=("ant", "bee", "cat"), tokenizer="none")


def random_params(module, *inputs: jax.ShapeDtypeStruct):
    """Normal numbers of a size that keeps activations near 1, drawn without compiling anything."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]

    def draw(leaf):
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) / np.sqrt(max(1, leaf.shape[-1])))

    return jax.tree.map(draw, shapes)
