"""Matrix products, said so that little is read and written."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def float32_product(x: Float[Array, "*s D"], weights: Float[Array, "D N"]) -> Float[Array, "*s N"]:
    """Multiplies in the inputs' data type and accumulates in float32, the result's type.

    The result's cotangent is rounded to the inputs' type before it is used: for logits it is as large as they are.
    """
    return jnp.matmul(x, weights, preferred_element_type=jnp.float32)


def _forward(x: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    return float32_product(x, weights), (x, weights)


def _backward(inputs: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, weights = inputs
    rows = x.reshape(-1, x.shape[-1])
    cotangent = cotangent.reshape(-1, cotangent.shape[-1]).astype(x.dtype)
    return (cotangent @ weights.T).reshape(x.shape), rows.T @ cotangent


float32_product.defvjp(_forward, _backward)


def two_products(
    x: Float[Array, "B T D"], first: Float[Array, "D h"], second: Float[Array, "D h"]
) -> tuple[Float[Array, "B T h"], Float[Array, "B T h"]]:
    """Multiplies x by two matrices: as one product that reads x once; on TPUs, as two.

    A TPU pads the axis of two to a whole tile, and sends it around if the matrices are split over devices.
    """
    return jax.lax.platform_dependent(x, first, second, tpu=_separately, default=_at_once)


def _separately(x: Array, first: Array, second: Array) -> tuple[Array, Array]:
    return x @ first, x @ second


def _at_once(x: Array, first: Array, second: Array) -> tuple[Array, Array]:
    both = jnp.einsum("btd,dgh->btgh", x, jnp.stack([first, second], axis=1))
    return both[:, :, 0], both[:, :, 1]
