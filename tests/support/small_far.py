"""A generator of a few thousand parameters, all of which matter, with codes and labels."""

import jax
import jax.numpy as jnp

from fqgan_jax.models.far import FAR


def random_far(num_codebooks: int, **fields):
    """Returns a module, random parameters, codes [3, 12, K] and labels, the last of which is the null class."""
    module = FAR(
        num_codebooks=num_codebooks,
        codebook_size=11,
        num_classes=5,
        grid=(3, 4),
        width=16,
        depth=2,
        num_heads=2,
        head_depth=2,
        swiglu_multiple=8,
        **fields,
    )
    codes = jax.random.randint(jax.random.key(1), (3, 12, num_codebooks), 0, 11)
    labels = jnp.array([0, 4, 5])
    shapes = jax.eval_shape(module.init, jax.random.key(0), codes, labels)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    # Larger than the initialization (whose outputs are zero), so that every part matters.
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [0.4 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return module, jax.tree.unflatten(structure, leaves), codes, labels
