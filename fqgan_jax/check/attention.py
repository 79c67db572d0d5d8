"""Parts that compare every implementation of attention with the plain one; an implementation is a row."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fqgan_jax.check.numbers import Numbers
from fqgan_jax.check.parts import BFLOAT16_ROUNDING, ROUNDING, NotHereError, Part, parts
from fqgan_jax.check.subjects import Subjects, noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """An implementation of attention.

    Attributes:
      function: `(query, key, value, *, is_causal)`, of arrays `[B, T, heads, width]`.
      dtype: of its inputs.
      platform: that has it; empty: all.
      bound: of the relative deviation of outputs and gradients.
    """

    function: Callable[..., Array]
    dtype: jnp.dtype = jnp.float32
    platform: str = ""
    bound: float = ROUNDING


def _jax_attention(implementation: str) -> Callable[..., Array]:
    """Looks the function up when it is called."""
    return lambda *inputs, **options: jax.nn.dot_product_attention(*inputs, implementation=implementation, **options)


ATTENTIONS = {
    "XLA": Attention(function=_jax_attention("xla")),
    "cuDNN": Attention(function=_jax_attention("cudnn"), dtype=jnp.bfloat16, platform="gpu", bound=BFLOAT16_ROUNDING),
}


def plain_attention(
    query: Float[Array, "B T heads width"],
    key: Float[Array, "B T heads width"],
    value: Float[Array, "B T heads width"],
    *,
    is_causal: bool,
) -> Float[Array, "B T heads width"]:
    """Computes attention as its definition says."""
    scores = jnp.einsum("bthc,bshc->bhts", query, key) / math.sqrt(query.shape[-1])
    if is_causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(scores), value)


def compare_attention(attention: Attention, subjects: Subjects) -> tuple[Numbers, Numbers]:
    """Returns outputs and gradients of an implementation and of the plain one, causal and not.

    Raises:
      NotHereError: this platform does not have the implementation.
    """
    del subjects
    platform = jax.local_devices()[0].platform
    if attention.platform not in ("", platform):
        raise NotHereError(f"not on {platform}")
    shape = (2, 64, 4, 32)
    inputs = [jnp.asarray(4 * noise(name, shape), attention.dtype) for name in ("query", "key", "value")]
    cotangent = noise("cotangent", shape)

    def results(function: Callable[..., Array], *inputs: Array) -> dict[str, Array]:
        found = {}
        for name, is_causal in {"causal": True, "not causal": False}.items():
            y, pull_back = jax.vjp(partial(function, is_causal=is_causal), *inputs)
            grads = zip(("query", "key", "value"), pull_back(cotangent.astype(y.dtype)), strict=True)
            found |= {name: y} | {f"{name}, gradient of {x}": grad for x, grad in grads}
        return found

    computed = jax.jit(partial(results, attention.function))(*inputs)
    expected = jax.jit(partial(results, plain_attention))(*(x.astype(jnp.float32) for x in inputs))
    return computed, expected


for _name, _attention in ATTENTIONS.items():
    parts.add(f"attention, {_name}", Part(function=partial(compare_attention, _attention), bound=_attention.bound))
