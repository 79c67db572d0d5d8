"""Softmax attention, by the implementation that suits the platform for which a program is lowered."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LARGEST_HEAD = 128  # that cuDNN's gradient takes; its heads are multiples of 8 channels wide


def attention(
    query: Float[Array, "B T H c"],
    key: Float[Array, "B T H c"],
    value: Float[Array, "B T H c"],
    *,
    causal: bool = False,
) -> Float[Array, "B T H c"]:
    """Computes softmax(q k / sqrt c) v for each head.

    NVIDIA GPUs run cuDNN's fused attention where it takes the sizes: it writes no probabilities to memory.

    Args:
      query: queries of all positions.
      key: keys of the same positions.
      value: values of the same positions.
      causal: whether a position sees only those up to itself.
    """
    plain = functools.partial(plain_attention, causal=causal)
    if not (has_cudnn() and takes_cudnn(query)):
        return plain(query, key, value)
    fused = functools.partial(cudnn_attention, causal=causal)
    return jax.lax.platform_dependent(query, key, value, cuda=fused, default=plain)


def plain_attention(query: Array, key: Array, value: Array, *, causal: bool = False) -> Array:
    """Computes `attention` with two products and a softmax, on any platform."""
    return jax.nn.dot_product_attention(query, key, value, is_causal=causal)


def cudnn_attention(query: Array, key: Array, value: Array, *, causal: bool = False) -> Array:
    """Computes `attention` with cuDNN, for sizes that `takes_cudnn` allows."""
    B, T = query.shape[:2]
    run = functools.partial(jax.nn.dot_product_attention, is_causal=causal, implementation="cudnn")
    if T % 2 == 0:
        return run(query, key, value)
    # cuDNN takes even lengths.
    padded = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    lengths = jnp.full(B, T, jnp.int32)
    return run(*padded, query_seq_lengths=lengths, key_value_seq_lengths=lengths)[:, :T]


def takes_cudnn(query: Float[Array, "B T H c"]) -> bool:
    """Returns whether cuDNN has fused attention for heads of this width and data type."""
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and query.shape[-1] <= _LARGEST_HEAD and query.shape[-1] % 8 == 0


@functools.cache
def has_cudnn() -> bool:
    """Returns whether this installation of JAX can trace calls of cuDNN, with or without a GPU at hand."""
    x = jax.ShapeDtypeStruct((1, 2, 1, 8), jnp.bfloat16)
    try:
        jax.eval_shape(cudnn_attention, x, x, x)
    except RuntimeError:
        return False
    return True
