"""Published checkpoints (PyTorch names and layouts) to our parameters and back. Pure; arrays are numpy's.

    fields = tokenizer_config({name: tensor.shape for name, tensor in state.items()})
    module = Tokenizer(**fields)
    params = import_tokenizer(state, module)  # module.apply({"params": params}, images)
    state = export_tokenizer(params, module)

Reading and writing the files is not done here.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fqgan_jax.interop.correspondence import Entry, Shape, check_tensors, correspondence, gather, scatter
from fqgan_jax.interop.far_names import FAR_RULES, far_config, table_names
from fqgan_jax.interop.tokenizer_names import (
    TOKENIZER_RULES,
    USAGE_BUFFER,
    USAGE_BUFFER_SIZE,
    codebook_names,
    tokenizer_config,
)
from fqgan_jax.models.far import FAR
from fqgan_jax.models.tokenizer import Tokenizer

__all__ = [
    "export_far",
    "export_tokenizer",
    "far_config",
    "far_entries",
    "import_far",
    "import_tokenizer",
    "tokenizer_config",
    "tokenizer_entries",
]


def tokenizer_entries(module: Tokenizer) -> list[Entry]:
    """One entry a published tensor of the tokenizer (name, published shape, place in our parameters), buffers apart."""
    f = 2 ** (len(module.multipliers) - 1)
    images = jax.ShapeDtypeStruct((1, module.grid[0] * f, module.grid[1] * f, 3), jnp.float32)
    return correspondence(TOKENIZER_RULES, _shapes(module, images), codebook_names(module.num_codebooks))


def import_tokenizer(state: Mapping[str, np.ndarray], module: Tokenizer) -> dict:
    """Parameters of `module` (nested, float32) from published tensors.

    Usage buffers (`codebook_used`) are ignored. UserError where tensors are missing, unexpected or of another shape.
    """
    buffers = _usage_buffers(module)
    state = {name: tensor for name, tensor in state.items() if name not in buffers}
    entries = tokenizer_entries(module)
    check_tensors(entries, state, "this tokenizer")
    return scatter(entries, state)


def export_tokenizer(params: Mapping, module: Tokenizer) -> dict[str, np.ndarray]:
    """Published tensors of the tokenizer's parameters, the inverse of `import_tokenizer`, with empty usage buffers."""
    tensors = gather(tokenizer_entries(module), params)
    return tensors | {name: np.zeros(USAGE_BUFFER_SIZE, np.float32) for name in _usage_buffers(module)}


def far_entries(module: FAR) -> list[Entry]:
    """One entry a published tensor of the generator (name, published shape, place in our parameters)."""
    codes = jax.ShapeDtypeStruct((1, module.grid[0] * module.grid[1], module.num_codebooks), jnp.int32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    return correspondence(FAR_RULES, _shapes(module, codes, labels), table_names(module.num_codebooks))


def import_far(state: Mapping[str, np.ndarray], module: FAR) -> dict:
    """Parameters of `module` (nested, float32) from published tensors.

    UserError where tensors are missing, unexpected or of another shape.
    """
    entries = far_entries(module)
    check_tensors(entries, state, "this generator")
    return scatter(entries, state)


def export_far(params: Mapping, module: FAR) -> dict[str, np.ndarray]:
    """Published tensors of the generator's parameters, the inverse of `import_far`."""
    return gather(far_entries(module), params)


def _usage_buffers(module: Tokenizer) -> list[str]:
    return [USAGE_BUFFER.format(**names) for names in codebook_names(module.num_codebooks)]


def _shapes(module: nn.Module, *inputs: jax.ShapeDtypeStruct) -> dict[str, Shape]:
    """Path to shape of every parameter, computing nothing."""
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
