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

from fqgan_jax.models.far import FAR
from fqgan_jax.models.fields import downsampling
from fqgan_jax.models.fqgan import FQGAN
from fqgan_jax.models.sampling import SamplingOptions, sample_codes

PLATFORMS = ("cpu", "cuda", "tpu")

FlatParams = Mapping[str, Array]


def flat_params(params: PyTree) -> dict[str, np.ndarray]:
    """The programs' first argument: our parameters by path, without what only training needs."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return {path: np.asarray(leaf) for path, leaf in flat.items() if not path.startswith("feature_predictors")}


def tokenizer_programs(module: FQGAN, params: PyTree) -> dict[str, export.Exported]:
    """`encode(params, images [b, H, W, 3]) -> codes [b, h, w, K]` and `decode(params, codes) -> images`.

    Images are float32 in [-1, 1], of the size the tokenizer was trained on; codes are int32.
    """

    def encode(params: FlatParams, images: Float[Array, "b H W 3"]) -> Int[Array, "b h w K"]:
        tokenizer = module.bind(_nested(params))
        # Nearest entries image by image: how many tokens fit at a time cannot depend on a batch not known yet.
        return jax.lax.map(lambda z: tokenizer.latents_to_codes(z[None])[0], tokenizer.latents(images))

    def decode(params: FlatParams, codes: Int[Array, "b h w K"]) -> Float[Array, "b H W 3"]:
        return jnp.clip(module.apply(_nested(params), codes, method="decode"), -1, 1)

    h, w = module.grid
    f = downsampling(module.multipliers)
    images = lambda b: jax.ShapeDtypeStruct((b, h * f, w * f, 3), jnp.float32)
    codes = lambda b: jax.ShapeDtypeStruct((b, h, w, module.num_codebooks), jnp.int32)
    return {"encode": _program(encode, params, images), "decode": _program(decode, params, codes)}


def generator_programs(module: FAR, params: PyTree) -> dict[str, export.Exported]:
    """`sample(params, key, labels [b], guidance [K], temperature [K]) -> codes [b, h, w, K]`: the whole loop.

    The same codes as `api.Generator.sample` of this key, without top-k and top-p; temperature 0 is greedy.
    """

    def sample(
        params: FlatParams,
        key: Key[Array, ""],
        labels: Int[Array, " b"],
        guidance: Float[Array, " K"],
        temperature: Float[Array, " K"],
    ) -> Int[Array, "b h w K"]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(labels.shape[0]))
        options = SamplingOptions(guidance=guidance, temperature=temperature, top_k=None, top_p=None)
        return sample_codes(module, _nested(params)["params"], keys=keys, labels=labels, options=options)

    key = jax.eval_shape(lambda: jax.random.key(0))
    labels = lambda b: jax.ShapeDtypeStruct((b,), jnp.int32)
    option = jax.ShapeDtypeStruct((module.num_codebooks,), jnp.float32)
    return {"sample": _program(sample, params, key, labels, option, option)}


def _program(function: Callable, params: PyTree, *arguments) -> export.Exported:
    """Exports a function of parameters and arguments (shapes; or, given the batch size, a shape)."""
    (b,) = export.symbolic_shape("b")
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in flat_params(params).items()}
    arguments = [argument(b) if callable(argument) else argument for argument in arguments]
    return export.export(jax.jit(function), platforms=PLATFORMS)(shapes, *arguments)


def _nested(params: FlatParams) -> dict:
    return {"params": traverse_util.unflatten_dict(params, sep="/")}
