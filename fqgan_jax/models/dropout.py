"""Dropout whose backward pass draws its mask again instead of reading it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dropout(nn.Module):
    """`flax.linen.Dropout`, with the same masks; no mask is stored for the backward pass.

    Attributes:
      rate: share of elements that become zero in training.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*s"], *, train: bool) -> Float[Array, "*s"]:
        """Sets random elements to zero, with the random stream "dropout", and scales up the others.

        Args:
          x: any array.
          train: whether elements are dropped at all.
        """
        if not train or self.rate == 0:
            return x
        return _drop(1 - self.rate, x, self.make_rng("dropout"))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _drop(keep: float, x: Array, key: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key, keep, x.shape), x / keep, jnp.zeros_like(x))


def _forward(keep: float, x: Array, key: Array) -> tuple[Array, Array]:
    return _drop(keep, x, key), key


def _backward(keep: float, key: Array, cotangent: Array) -> tuple[Array, None]:
    # Behind the barrier the mask is another one to the compiler, which would store it otherwise.
    return _drop(keep, cotangent, jax.lax.optimization_barrier(key)), None


_drop.defvjp(_forward, _backward)
