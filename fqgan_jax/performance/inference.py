"""Inference from configs alone, with random weights and on noise: encoding, decoding, sampling."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree, UInt8
from ml_collections import ConfigDict

from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.transforms import height_and_width
from fqgan_jax.models.applying import apply
from fqgan_jax.models.fields import build_module
from fqgan_jax.models.sampling import sample_codes
from fqgan_jax.models.sampling_options import sampling_options
from fqgan_jax.performance.floors import layer_floor_bytes, sampling_floor_bytes
from fqgan_jax.training.from_config import image_size, tokenizer_fields
from fqgan_jax.training.generator_task import GeneratorTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """A model that is applied to batches.

    Attributes:
      module: the model.
      function: `(params, batch)`, returns codes or images.
      init: of a key, returns random parameters.
      random_batch: `(key, size)`, returns a batch of noise.
      floor: `(params, size)`, returns the bytes that a batch must move at least.
    """

    module: nn.Module
    function: Callable[[PyTree, PyTree], Array]
    init: Callable[[jax.Array], PyTree]
    random_batch: Callable[[jax.Array, int], PyTree]
    floor: Callable[[PyTree, int], float]

    @property
    def shapes(self) -> PyTree:
        """Shapes of the parameters."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def batch_shapes(self, size: int) -> PyTree:
        """Returns the shapes of a batch."""
        return jax.eval_shape(lambda key: self.random_batch(key, size), jax.random.key(0))


def encoding(config: ConfigDict) -> Inference:
    """Returns a tokenizer's `encode`, from uint8 images to codes."""
    shape = (*height_and_width(image_size(config.data)), 3)

    def encode(module: nn.Module, params: PyTree, images: UInt8[Array, "B H W 3"]) -> Int[Array, "B h w K"]:
        return apply(module, params, to_float(images), method="encode")

    def random_images(key: jax.Array, size: int) -> UInt8[Array, "B H W 3"]:
        return jax.random.bits(key, (size, *shape), jnp.uint8)

    return _of_tokenizer(config, encode, random_images)


def decoding(config: ConfigDict) -> Inference:
    """Returns a tokenizer's `decode`, from codes to images."""
    fields = tokenizer_fields(config)

    def decode(module: nn.Module, params: PyTree, codes: Int[Array, "B h w K"]) -> Array:
        return apply(module, params, codes, method="decode")

    def random_codes(key: jax.Array, size: int) -> Int[Array, "B h w K"]:
        shape = (size, *fields["grid"], fields["num_codebooks"])
        return jax.random.randint(key, shape, 0, fields["codebook_size"])

    return _of_tokenizer(config, decode, random_codes)


def _of_tokenizer(config: ConfigDict, apply: Callable, random_batch: Callable) -> Inference:
    """Inference of `apply(module, params, batch)`."""
    module, image_shape = build_module("tokenizer", tokenizer_fields(config)), height_and_width(image_size(config.data))

    def function(params: PyTree, batch: Array) -> Array:
        return apply(module, params, batch)

    def init(key: jax.Array) -> PyTree:
        return module.init(key, jnp.zeros((1, *image_shape, 3)))["params"]

    def floor(params: PyTree, size: int) -> float:
        batch = jax.eval_shape(lambda key: random_batch(key, size), jax.random.key(0))
        return layer_floor_bytes(function, params, batch)

    return Inference(module=module, function=function, init=init, random_batch=random_batch, floor=floor)


def sampling(config: ConfigDict, tokenizer_config: ConfigDict | None = None) -> Inference:
    """Returns guided sampling, from labels to codes.

    Args:
      config: of a generator.
      tokenizer_config: whose codes the generator draws if its config names no code cache.
    """
    module = GeneratorTask.without_data(config, 1, tokenizer_config=tokenizer_config).module

    def sample(params: PyTree, batch: dict[str, Array]) -> Int[Array, "B h w K"]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), batch["index"])
        generator, options = params["generator"], params["options"]
        return sample_codes(module, generator, keys=keys, labels=batch["label"], options=options)

    def init(key: jax.Array) -> PyTree:
        codes = jnp.zeros((1, module.grid[0] * module.grid[1], module.num_codebooks), jnp.int32)
        generator = module.init(key, codes, jnp.zeros(1, jnp.int32))["params"]
        return {"generator": generator, "options": sampling_options(module.num_codebooks)}

    def random_labels(key: jax.Array, size: int) -> dict[str, Array]:
        return {"index": jnp.arange(size), "label": jax.random.randint(key, (size,), 0, module.num_classes)}

    def floor(params: PyTree, size: int) -> float:
        return sampling_floor_bytes(module, params["generator"], size)

    return Inference(module=module, function=sample, init=init, random_batch=random_labels, floor=floor)
