"""Meshes and parameter rules on eight virtual devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import make_mesh
from fqgan_jax.sharding.rules import state_sharding


def test_one_open_size_takes_the_rest():
    assert dict(make_mesh({"data": -1, "fsdp": 2}).shape) == {"data": 4, "fsdp": 2}


@pytest.mark.parametrize("axes", [{"data": 3, "fsdp": 1}, {"data": -1, "fsdp": 3}])
def test_sizes_that_do_not_fit_are_explained(axes):
    with pytest.raises(UserError, match=r"does not fit 8 device"):
        make_mesh(axes)


def test_parameters_are_split_along_their_largest_divisible_dimension():
    shapes = {"kernel": (3, 3, 64, 129), "table": (16384, 8), "small": (8, 8), "odd": (127, 131)}
    leaves = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = {name: place.spec for name, place in state_sharding(leaves, make_mesh({"data": 2, "fsdp": 4})).items()}
    assert specs["kernel"] == PartitionSpec(None, None, "fsdp", None)
    assert specs["table"] == PartitionSpec("fsdp", None)
    assert specs["small"] == specs["odd"] == PartitionSpec()
