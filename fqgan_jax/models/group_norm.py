"""Group normalization, and its swish, with a gradient that passes over the feature map as seldom as possible."""

import dataclasses
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_EPSILON = 1e-6


class GroupNorm(nn.Module, kw_only=True):
    """Group normalization with statistics in float32, then swish if `swish` is set.

    Groups of one channel discard an image's brightness and colour: give narrow models fewer groups.

    Attributes:
      groups: number of groups; the greatest common divisor of it and the width is used.
      swish: whether x * sigmoid(x) follows.
      dtype: data type of the result.
    """

    groups: int = 32
    swish: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        """Normalizes each group of channels over all positions of an image."""
        scale, bias = _Affine(name="norm")(x.shape[-1])
        settings = _Settings(groups=math.gcd(self.groups, x.shape[-1]), swish=self.swish)
        return _normalize(settings, x.astype(self.dtype), scale, bias)


class _Affine(nn.Module):
    @nn.compact
    def __call__(self, width: int) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        scale = self.param("scale", nn.initializers.ones_init(), (width,))
        return scale, self.param("bias", nn.initializers.zeros_init(), (width,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    groups: int
    swish: bool

    def mean(self, channels: Float[Array, "B c"]) -> Float[Array, "B c"]:
        """The mean of each group, for each of its channels."""
        B, c = channels.shape
        means = channels.reshape(B, self.groups, c // self.groups).mean(axis=-1)
        return jnp.repeat(means, c // self.groups, axis=-1)


# `jax.vjp` of the plain formula writes a map between the reductions and the gradient that needs them. Here two passes
# read the map and the cotangent: one for the sums over positions, one for the gradient.
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(settings: _Settings, x: Array, scale: Array, bias: Array) -> Array:
    return _normalize_forward(settings, x, scale, bias)[0]


def _normalize_forward(settings: _Settings, x: Array, scale: Array, bias: Array) -> tuple[Array, tuple]:
    wide = x.astype(jnp.float32)
    mean = settings.mean(wide.mean(axis=(1, 2)))
    variance = settings.mean(jnp.square(wide).mean(axis=(1, 2))) - jnp.square(mean)
    inverse = jax.lax.rsqrt(jnp.maximum(variance, 0) + _EPSILON)
    normalized = _at_positions(inverse * scale) * (wide - _at_positions(mean)) + bias
    y = nn.swish(normalized) if settings.swish else normalized
    return y.astype(x.dtype), (x, scale, bias, mean, inverse)


def _normalize_backward(settings: _Settings, residuals: tuple, cotangent: Array) -> tuple[Array, Array, Array]:
    x, scale, bias, mean, inverse = residuals
    wide, cotangent = x.astype(jnp.float32), cotangent.astype(jnp.float32)

    def before_swish(normalized: Array) -> Array:
        """The cotangent of the map before the swish."""
        if not settings.swish:
            return cotangent
        gate = nn.sigmoid(normalized)
        return cotangent * gate * (1 + normalized * (1 - gate))

    standard = (wide - _at_positions(mean)) * _at_positions(inverse)
    gradient = before_swish(standard * scale + bias)
    sums = gradient.sum(axis=(1, 2)), (gradient * standard).sum(axis=(1, 2))
    # Without the barrier the sums over the batch below become sums over the whole map, in a pass of their own.
    by_bias, by_scale = jax.lax.optimization_barrier(sums)

    # Said in another way, so that the compiler computes it again instead of writing it down in the first pass.
    factor = inverse * scale
    gradient = before_swish(_at_positions(factor) * wide + _at_positions(bias - mean * factor))
    positions = x.shape[1] * x.shape[2]
    shift, slope = (settings.mean(each * scale / positions) for each in (by_bias, by_scale))
    slope = slope * inverse**2
    by_x = _at_positions(factor) * gradient - _at_positions(slope) * wide
    by_x = by_x + _at_positions(mean * slope - inverse * shift)
    return by_x.astype(x.dtype), by_scale.sum(axis=0), by_bias.sum(axis=0)


def _at_positions(channels: Float[Array, "B c"]) -> Float[Array, "B 1 1 c"]:
    return channels[:, None, None]


_normalize.defvjp(_normalize_forward, _normalize_backward)
