"""Group normalization against Flax's, with the gradient that JAX derives; and how many maps its gradient writes."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fqgan_jax.models.group_norm import GroupNorm


def plain(params, x, *, groups: int, swish: bool):
    y = nn.GroupNorm(groups, epsilon=1e-6).apply({"params": params["norm"]}, x)
    return nn.swish(y) if swish else y


@pytest.mark.parametrize("swish", [False, True])
@pytest.mark.parametrize(("width", "groups"), [(8, 4), (12, 32), (6, 1)])
def test_values_and_gradients_are_those_of_the_plain_formula(width, groups, *, swish):
    keys = jax.random.split(jax.random.key(0), 4)
    x, cotangent = (3 + 2 * jax.random.normal(key, (2, 5, 7, width)) for key in keys[:2])
    module = GroupNorm(groups=groups, swish=swish)
    params = module.init(keys[2], x)["params"]
    params = jax.tree.map(lambda p: p + jax.random.normal(keys[3], p.shape), params)
    y, pull_back = jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x)
    used = math.gcd(groups, width)
    expected, expected_pull_back = jax.vjp(lambda params, x: plain(params, x, groups=used, swish=swish), params, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(pull_back(cotangent)), jax.tree.leaves(expected_pull_back(cotangent)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_half_precision_has_statistics_in_float32():
    x = 100 + jax.random.normal(jax.random.key(0), (1, 32, 32, 8))
    module = GroupNorm(groups=2, dtype=jnp.bfloat16)
    params = module.init(jax.random.key(1), x)["params"]
    half = x.astype(jnp.bfloat16)
    y = module.apply({"params": params}, half)
    assert y.dtype == jnp.bfloat16
    expected = plain(params, half.astype(jnp.float32), groups=2, swish=False)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.02)


def test_stacked_over_heads_and_under_rematerialization():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    stacked = nn.vmap(
        nn.remat(GroupNorm), variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=3
    )(groups=4, swish=True)
    params = stacked.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda p: p * jnp.arange(1.0, 4)[:, None], params)

    def total(params, apply):
        return jnp.sum(jnp.sin(apply(params)))

    ours = jax.grad(total)(params, lambda params: stacked.apply({"params": params}, x))
    each = [jax.tree.map(lambda p, k=k: p[k], params) for k in range(3)]
    theirs = [jax.grad(total)(p, lambda p: plain(p, x, groups=4, swish=True)) for p in each]
    jax.tree.map(
        lambda got, *parts: np.testing.assert_allclose(got, np.stack(parts), rtol=1e-4, atol=1e-5), ours, *theirs
    )
