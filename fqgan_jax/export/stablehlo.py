"""Programs that JAX alone can run: `jax.export` of encoding, decoding and sampling, for any batch size.

Each program is one file for CPUs, NVIDIA GPUs and TPUs. Parameters are its first argument, a flat dict, so that
programs stay small and share one file of parameters: a 32-bit offset bounds the size of a program, not of the dict.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export
from jaxtyping import Array, Float, Int, Key, PyTree

from fqgan_jax.config import Registry
from fqgan_jax.models.applying import apply
from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import downsampling
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.sampling import sample_codes
from fqgan_jax.models.sampling_options import SamplingOptions

PLATFORMS = ("cpu", "cuda", "tpu")

FlatParams = Mapping[str, Array]

# A row gives the programs of a kind of model by name, from its module and parameters.
programs: Registry[Callable[..., dict[str, export.Exported]]] = Registry("kind of model with StableHLO programs")


def flat_params(params: PyTree) -> dict[str, np.ndarray]:
    """Returns the first argument of the programs: parameters by path, without those that only training needs."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return {path: np.asarray(leaf) for path, leaf in flat.items() if not path.startswith("feature_predictors")}


@programs("tokenizer")
def tokenizer_programs(module: FQGAN, params: PyTree) -> dict[str, export.Exported]:
    """Exports `encode(params, images [b, H, W, 3]) -> codes [b, h, w, K]` and `decode(params, codes) -> images`.

    Images are float32 in [-1, 1], of the size the tokenizer was trained on; codes are int32.
    """

    def encode(params: FlatParams, images: Float[Array, "b H W 3"]) -> Int[Array, "b h w K"]:
        tokenizer = module.bind({"params": _nested(params)})

        def nearest(latents: Float[Array, "h w K d"]) -> Int[Array, "h w K"]:
            return tokenizer.latents_to_codes(latents[None])[0]

        # Image by image: the number of tokens that fit into memory cannot depend on an unknown batch size.
        return jax.lax.map(nearest, tokenizer.latents(images))

    def decode(params: FlatParams, codes: Int[Array, "b h w K"]) -> Float[Array, "b H W 3"]:
        return jnp.clip(apply(module, _nested(params), codes, method="decode"), -1, 1)

    b = _symbolic_batch_size()
    (h, w), f = module.grid, downsampling(module.multipliers)
    images = jax.ShapeDtypeStruct((b, h * f, w * f, 3), jnp.float32)
    codes = jax.ShapeDtypeStruct((b, h, w, module.num_codebooks), jnp.int32)
    return {"encode": _export(encode, params, images), "decode": _export(decode, params, codes)}


@programs("generator")
def generator_programs(module: FAR, params: PyTree) -> dict[str, export.Exported]:
    """Exports `sample(params, key, labels [b], guidance [K], temperature [K]) -> codes [b, h, w, K]`: the whole loop.

    It draws the codes that `api.Generator.sample` draws with this key, without top-k and top-p; temperature 0 is
    greedy.
    """

    def sample(
        params: FlatParams, key: Key[Array, ""], labels: Int[Array, " b"], *scales: Float[Array, " K"]
    ) -> Int[Array, "b h w K"]:
        guidance, temperature = scales
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(labels.shape[0]))
        options = SamplingOptions(guidance=guidance, temperature=temperature)
        return sample_codes(module, _nested(params), keys=keys, labels=labels, options=options)

    key = jax.eval_shape(jax.random.key, 0)
    labels = jax.ShapeDtypeStruct((_symbolic_batch_size(),), jnp.int32)
    option = jax.ShapeDtypeStruct((module.num_codebooks,), jnp.float32)
    return {"sample": _export(sample, params, key, labels, option, option)}


def _symbolic_batch_size():
    """The batch dimension b, any number."""
    return export.symbolic_shape("b")[0]


def _export(function: Callable, params: PyTree, *inputs: jax.ShapeDtypeStruct) -> export.Exported:
    """Exports a function of flat parameters and inputs of these shapes."""
    flat = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in flat_params(params).items()}
    return export.export(jax.jit(function), platforms=PLATFORMS)(flat, *inputs)


def _nested(params: FlatParams) -> PyTree:
    return traverse_util.unflatten_dict(params, sep="/")
