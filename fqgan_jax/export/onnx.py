"""A tokenizer as ONNX: converted by jax2onnx for one batch size, and checked against JAX with onnxruntime."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Float, Int, PyTree

from fqgan_jax.errors import UserError, import_extra
from fqgan_jax.models.applying import apply
from fqgan_jax.models.fields import downsampling
from fqgan_jax.models.fqgan import FQGAN

# Largest difference of a latent (relative to the largest latent) and of an image.
TOLERANCE = 1e-3
# Codes may differ only if the other entry's squared distance is larger by no more than this (relative to the largest
# squared norm of a latent).
CODE_TOLERANCE = 1e-4


def tokenizer_models(module: FQGAN, params: PyTree, *, batch_size: int) -> dict[str, bytes]:
    """Returns serialized ONNX models, which compute in float32.

    "encode": images [B, H, W, 3] in [-1, 1] to codes [B, h, w, K] (int32) and latents [B, h, w, K, d];
    "decode": codes to images.

    Raises:
      UserError: jax2onnx is not installed, or the ONNX model's outputs differ from JAX's (see `check_models`).
    """
    import_extra("onnxruntime", "onnx")
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)  # it warns of plugins that are not used here
    module = module.clone(dtype=jnp.float32)

    def encode(images: Float[Array, "B H W 3"]) -> tuple[Int[Array, "B h w K"], Float[Array, "B h w K d"]]:
        tokenizer = module.bind({"params": params})
        latents = tokenizer.latents(images)
        return tokenizer.latents_to_codes(latents), latents

    def decode(codes: Int[Array, "B h w K"]) -> Float[Array, "B H W 3"]:
        return jnp.clip(apply(module, params, codes, method="decode"), -1, 1)

    (h, w), f = module.grid, downsampling(module.multipliers)
    images = jax.ShapeDtypeStruct((batch_size, h * f, w * f, 3), jnp.float32)
    codes = jax.ShapeDtypeStruct((batch_size, h, w, module.num_codebooks), jnp.int32)
    models = {
        "encode": _convert(encode, {"images": images}, ["codes", "latents"]),
        "decode": _convert(decode, {"codes": codes}, ["images"]),
    }
    sample = np.random.default_rng(0).uniform(-1, 1, images.shape).astype(np.float32)
    check_models(models, module, params, images=sample)
    return models


def check_models(
    models: Mapping[str, bytes], module: FQGAN, params: PyTree, *, images: Float[np.ndarray, "B H W 3"]
) -> None:
    """Runs the models with onnxruntime on the CPU and compares them with what `module` computes.

    Latents and images agree to `TOLERANCE`. Each of ONNX's codes names an entry that is no farther from the module's
    latent than the nearest one by more than `CODE_TOLERANCE`: codes differ only if two entries are equally near.

    Raises:
      UserError: they do not.
    """
    onnx_codes, onnx_latents = run_model(models["encode"], {"images": images})
    # GPUs and TPUs would round the factors of products.
    with jax.default_matmul_precision("highest"):
        expected = _expected(module, params, images, onnx_codes=onnx_codes)
    (onnx_images,) = run_model(models["decode"], {"codes": np.asarray(expected.codes)})
    latents_differ = float(np.max(np.abs(onnx_latents - expected.latents)) / np.max(np.abs(expected.latents)))
    images_differ = float(np.max(np.abs(onnx_images - expected.images)))
    farther = float(expected.farther)
    # Written so that NaN fails.
    if not (farther <= CODE_TOLERANCE and latents_differ <= TOLERANCE and images_differ <= TOLERANCE):
        raise UserError(
            f"ONNX does not compute what JAX does: latents differ by {latents_differ:.1e} of the largest, images by "
            f"{images_differ:.1e} (allowed: {TOLERANCE}), and codes name entries {farther:.1e} farther than the "
            f"nearest (allowed: {CODE_TOLERANCE}). Install the versions of jax2onnx and onnxruntime in constraints.txt."
        )


class _Expected(NamedTuple):
    """JAX's results, for comparison.

    Attributes:
      latents: latents of the images.
      codes: codes of the images.
      images: images of these codes.
      farther: by how much the squared distance to the entry of ONNX's code exceeds that to the nearest entry, at most
        over all positions, relative to the largest squared norm of a latent.
    """

    latents: Float[Array, "B h w K d"]
    codes: Int[Array, "B h w K"]
    images: Float[Array, "B H W 3"]
    farther: Float[Array, ""]


@partial(jax.jit, static_argnames="module")
def _expected(module: FQGAN, params: PyTree, images: Array, *, onnx_codes: Array) -> _Expected:
    tokenizer = module.bind({"params": params})
    latents = tokenizer.latents(images)
    quantized = tokenizer.quantize(latents)
    onnx_entries = tokenizer.codes_to_entries(onnx_codes)
    assert quantized.entries is not None
    squared_distance = jnp.sum((quantized.latents - onnx_entries) ** 2, -1)
    nearest_squared_distance = jnp.sum((quantized.latents - quantized.entries) ** 2, -1)
    largest = jnp.max(jnp.sum(quantized.latents**2, -1))
    return _Expected(
        latents=latents,
        codes=quantized.codes,
        images=jnp.clip(tokenizer.decode(quantized.codes), -1, 1),
        farther=jnp.max(squared_distance - nearest_squared_distance) / largest,
    )


def run_model(model: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Returns the outputs of a serialized ONNX model, computed by onnxruntime on the CPU."""
    runtime = import_extra("onnxruntime", "onnx")
    return runtime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)


def _convert(function: Callable, inputs: dict[str, jax.ShapeDtypeStruct], outputs: list[str]) -> bytes:
    """Converts a function of inputs with these names and shapes; its outputs get names too."""
    to_onnx = import_extra("jax2onnx", "onnx").to_onnx
    shapes = list(inputs.values())
    # jax2onnx replaces Flax's layers by its own, which cannot be vmapped: it gets the plain primitives.
    primitives = jaxpr_as_fun(jax.make_jaxpr(function)(*shapes))
    model = to_onnx(primitives, inputs=shapes, input_names=list(inputs), output_names=outputs)
    _tidy(model.graph)
    return model.SerializeToString()


def _tidy(graph) -> None:
    """Removes unused constants and guessed inner shapes; onnxruntime warns of each when it loads the model."""
    del graph.value_info[:]
    for inner in _inner_graphs(graph):
        _tidy(inner)
    used = _used_names(graph)
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _inner_graphs(graph) -> list:
    """Bodies of loops and branches."""
    return [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]


def _used_names(graph) -> set[str]:
    """Names of the values that nodes read or the graph returns, in inner graphs too."""
    names = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return names.union(*map(_used_names, _inner_graphs(graph)))
