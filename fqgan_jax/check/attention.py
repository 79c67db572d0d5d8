"""Parts that compare every implementation of attention with its definition; an implementation is a row."""

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
from fqgan_jax.models.attention import attention, cudnn_attention, plain_attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """An implementation of attention.

    Attributes:
      function: `(query, key, value, *, causal)`, of arrays `[B, T, heads, width]`.
      dtype: of its inputs.
      platform: that has it; empty: all.
      bound: of the relative deviation of outputs and gradients.
    """

    function: Callable[..., Array]
    dtype: jnp.dtype = jnp.float32
    platform: str = ""
    bound: float = ROUNDING


ATTENTIONS = {
    "plain": Attention(function=plain_attention),
    "cuDNN": Attention(function=cudnn_attention, dtype=jnp.bfloat16, platform="gpu", bound=BFLOAT16_ROUNDING),
    "by platform": Attention(function=attention, dtype=jnp.bfloat16, bound=BFLOAT16_ROUNDING),
}


def defined_attention(
    query: Float[Array, "B T heads width"],
    key: Float[Array, "B T heads width"],
    value: Float[Array, "B T heads width"],
    *,
    causal: bool,
) -> Float[Array, "B T heads width"]:
    """Computes attention as its definition says."""
    scores = jnp.einsum("bthc,bshc->bhts", query, key) / math.sqrt(query.shape[-1])
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(scores), value)


def compare_attention(row: Attention, subjects: Subjects) -> tuple[Numbers, Numbers]:
    """Returns outputs and gradients of an implementation and of the definition, causal and not, of even and odd length.

    Raises:
      NotHereError: this platform does not have the implementation.
    """
    del subjects
    platform = jax.local_devices()[0].platform
    if row.platform not in ("", platform):
        raise NotHereError(f"not on {platform}")

    def results(function: Callable[..., Array], query: Array, key: Array, value: Array) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for length, causal in ((64, True), (64, False), (65, False)):  # some kernels take even lengths alone
            inputs = (query[:, :length], key[:, :length], value[:, :length])
            y, pull_back = jax.vjp(partial(function, causal=causal), *inputs)
            grads = pull_back(noise("cotangent", y.shape).astype(y.dtype))
            name = f"{'causal' if causal else 'whole'}, {length} positions"
            found |= {name: y, **{f"{name}, gradient {i}": grad for i, grad in enumerate(grads)}}
        return found

    inputs = [jnp.asarray(4 * noise(name, (2, 65, 4, 32)), row.dtype) for name in ("query", "key", "value")]
    computed = jax.jit(partial(results, row.function))(*inputs)
    expected = jax.jit(partial(results, defined_attention))(*(x.astype(jnp.float32) for x in inputs))
    return computed, expected


for _name, _attention in ATTENTIONS.items():
    parts.add(f"attention, {_name}", Part(function=partial(compare_attention, _attention), bound=_attention.bound))
