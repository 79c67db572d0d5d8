"""The first sub-codebooks of a tokenizer as a tokenizer of their own, which nested training makes useful.

Every parameter that grows with K holds the parts of the sub-codebooks one after the other along one axis, so a prefix
of the axis belongs to the first ones: stacked heads and codebooks, channels of a split head, rows of the layer that
joins the entries.
"""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from fqgan_jax.models.fields import downsampling
from fqgan_jax.models.fqgan import FQGAN


def first_codebooks(module: FQGAN, count: int) -> FQGAN:
    """Returns the module with the first `count` sub-codebooks alone."""
    return module.clone(
        num_codebooks=count,
        feature_widths=tuple(module.feature_widths)[:count],
        nested=tuple(module.nested)[:count],
    )


def first_params(module: FQGAN, params: PyTree) -> PyTree:
    """Returns the parts of parameters of more sub-codebooks that belong to a module of `first_codebooks`."""
    shapes = parameter_shapes(module)
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    wanted = dict(jax.tree_util.tree_flatten_with_path(shapes)[0])
    taken = {path: leaf[tuple(map(slice, wanted[path].shape))] for path, leaf in flat if path in wanted}
    return jax.tree_util.tree_map_with_path(lambda path, _: taken[path], shapes)


def parameter_shapes(module: FQGAN) -> PyTree:
    """Returns the shapes and types of a tokenizer's parameters, without computing anything."""
    f, (h, w) = downsampling(module.multipliers), module.grid
    images = jax.ShapeDtypeStruct((1, f * h, f * w, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)["params"]
