"""Dropout against Flax's: the same masks from the same stream, and its gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fqgan_jax.models.dropout import Dropout


def test_masks_and_gradients_are_those_of_flax():
    x = jax.random.normal(jax.random.key(0), (4, 8, 16))

    def value_and_gradient(module, **options):
        def total(x):
            y = module.apply({}, x, rngs={"dropout": jax.random.key(1)}, **options)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(total, has_aux=True))(x)

    ours = value_and_gradient(Dropout(0.3), train=True)
    theirs = value_and_gradient(nn.Dropout(0.3), deterministic=False)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert 0.2 < np.mean(ours[1] == 0) < 0.4


def test_nothing_is_dropped_without_a_rate_or_in_inference():
    x = jnp.ones((3, 5))
    assert Dropout(0.0).apply({}, x, train=True) is x
    assert Dropout(0.5).apply({}, x, train=False) is x


def test_no_mask_is_kept_for_the_backward_pass():
    x = jnp.ones((64, 64))
    _, pull_back = jax.vjp(lambda x: Dropout(0.5).apply({}, x, rngs={"dropout": jax.random.key(0)}, train=True), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull_back)) < 64
