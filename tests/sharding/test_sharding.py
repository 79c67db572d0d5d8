"""Meshes and parameter rules on eight virtual devices."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import PartitionSpec
from support.tiny_configs import tiny_generator_config, tiny_tokenizer_config

from fqgan_jax.config import load_config
from fqgan_jax.errors import UserError
from fqgan_jax.models.far import FAR
from fqgan_jax.sharding import rules
from fqgan_jax.sharding.mesh import BatchSlice, batch_sharding, batch_shards, batch_slice, make_mesh, put_global
from fqgan_jax.sharding.rules import RULES, partition, state_sharding, unmatched_rules, unnamed_parameters
from fqgan_jax.training.generator_task import GeneratorTask
from fqgan_jax.training.loop import abstract_state, first_state
from fqgan_jax.training.tokenizer_task import TokenizerTask


def test_one_open_size_takes_the_rest():
    assert dict(make_mesh({"data": -1, "fsdp": 2}).shape) == {"data": 4, "fsdp": 2, "tensor": 1}


@pytest.mark.parametrize("axes", [{"data": 3, "fsdp": 1}, {"data": -1, "fsdp": 3}, {"data": -1, "tensor": 3}])
def test_sizes_that_do_not_fit_are_explained(axes):
    with pytest.raises(UserError, match=r"does not fit 8 device"):
        make_mesh(axes)


def test_parameters_are_split_along_their_largest_divisible_dimension():
    shapes = {"kernel": (3, 3, 64, 129), "table": (16384, 8), "small": (8, 8), "odd": (127, 131)}
    leaves = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = {
        name: place.spec
        for name, place in state_sharding(leaves, make_mesh({"data": 2, "fsdp": 4}), kind="mine").items()
    }
    assert specs["kernel"] == PartitionSpec(None, None, "fsdp", None)
    assert specs["table"] == PartitionSpec("fsdp", None)
    assert specs["small"] == specs["odd"] == PartitionSpec()


@pytest.fixture(scope="module")
def parameters():
    """Path to shape of every parameter of the published tokenizer and generator."""
    tokenizer = TokenizerTask(load_config("configs/tokenizer_imagenet.py"), 1)
    generator = FAR(num_codebooks=2, codebook_size=16384, num_classes=1000, grid=(16, 16))
    codes, labels = jax.ShapeDtypeStruct((1, 256, 2), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    states = [jax.eval_shape(tokenizer.init, jax.random.key(0)).params]
    states.append(jax.eval_shape(generator.init, jax.random.key(0), codes, labels)["params"])
    return {name: leaf.shape for params in states for name, leaf in flatten_dict(params, sep="/").items()}


def test_every_rule_fits_the_published_networks_and_names_no_axis_twice(parameters):
    sizes = {"data": 1, "fsdp": 4, "tensor": 8}
    specs = {name: partition(name, shape, sizes) for name, shape in parameters.items()}
    for name, spec in specs.items():
        axes = [axis for axis in spec if axis]
        assert len(axes) == len(set(axes)), name
        assert all(parameters[name][i] % sizes[axis] == 0 for i, axis in enumerate(spec) if axis), name
    for rule in RULES:
        matched = [name for name in specs if rule.matches(name)]
        assert matched, rule
        split = [specs[name][len(parameters[name]) - len(rule.axes) :] for name in matched]
        assert all(axes.count("tensor") == 1 for axes in split), rule
    assert specs["heads/heads/adapter/transformer/blocks/mlp_in/kernel"] == PartitionSpec(None, None, "fsdp", "tensor")
    assert specs["backbone/blocks/down/kernel"] == PartitionSpec(None, "tensor", "fsdp")
    assert specs["outputs"] == PartitionSpec(None, "fsdp", "tensor")
    assert specs["decoder/conv_in/kernel"] == PartitionSpec(None, None, None, "fsdp")
    shares = sum(math.prod(shape) for name, shape in parameters.items() if any(specs[name]))
    assert shares > 0.99 * sum(map(math.prod, parameters.values()))


def test_every_large_parameter_of_the_published_networks_is_named(parameters):
    leaves = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in parameters.items()}
    assert unnamed_parameters(leaves) == {}


def test_a_large_parameter_that_no_rule_names_is_logged(caplog):
    leaves = {"mixer": {"kernel": jax.ShapeDtypeStruct((128, 128), jnp.float32)}, "small": jnp.zeros(8)}
    state_sharding(leaves, make_mesh({"data": 4, "tensor": 2}), kind="mine")
    assert "mesh.tensor=2 does not split these parameters" in caplog.text
    assert "mixer/kernel [128, 128]" in caplog.text
    caplog.clear()
    state_sharding(leaves, make_mesh({"data": 8}), kind="mine")
    assert not caplog.text


@pytest.mark.parametrize(
    ("kind", "name", "fails"),
    [
        ("generator", "backbone/blocks/qkv/kernel", True),
        ("tokenizer", "heads/heads/adapter/transformer/blocks/qkv/kernel", True),
        ("mine", "backbone/blocks/qkv/kernel", False),
    ],
)
def test_a_rule_with_a_typo_is_named_if_the_model_has_its_module(monkeypatch, kind, name, fails):
    first = dataclasses.replace(RULES[0], pattern="blocks/qvk/kernel")
    monkeypatch.setattr(rules, "RULES", (first,))
    leaves, mesh = {name: jax.ShapeDtypeStruct((8, 8), jnp.float32)}, make_mesh({"data": 4, "tensor": 2})
    if fails:
        with pytest.raises(UserError, match=rf"match no parameter of the {kind}: 'blocks/qvk/kernel'"):
            state_sharding(leaves, mesh, kind=kind)
    else:
        state_sharding(leaves, mesh, kind=kind)


@pytest.mark.parametrize(
    "fields",
    [(), ("model.factorization=split", "model.z_channels=16"), ("model.adapter_depth=0",), ("teachers=(None, None)",)],
    ids=str,
)
def test_every_rule_for_a_tokenizer_matches_whatever_parts_it_has(fields):
    task = TokenizerTask(tiny_tokenizer_config(*fields), 1)
    assert unmatched_rules(jax.eval_shape(task.init, jax.random.key(0)), "tokenizer") == []


def test_every_rule_for_a_generator_matches(code_cache):
    task = GeneratorTask(tiny_generator_config(f"data.codes={code_cache}"), 1)
    assert unmatched_rules(jax.eval_shape(task.init, jax.random.key(0)), "generator") == []


def test_a_dimension_that_does_not_divide_is_named():
    with pytest.raises(UserError, match=r"mesh.tensor=3 .*dimension 2 of parameter params/outputs \[2, 8, 64\].*rule"):
        partition("params/outputs", (2, 8, 64), {"data": 1, "fsdp": 1, "tensor": 3})


def test_the_state_is_split_from_the_first_moment(code_cache, tmp_path):
    fields = ("model.width=128", "model.num_heads=4", "optimizer.ema_decay=0.9")
    task = GeneratorTask(tiny_generator_config(f"data.codes={code_cache}", *fields), 2)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    state, _ = first_state(task, abstract_state(task, task.config.seed, mesh), mesh, workdir=tmp_path)
    split = 0
    for tree in (state.params, state.ema, state.opt_state[1][0].mu, state.opt_state[1][0].nu):
        for name, leaf in flatten_dict(tree, sep="/").items():
            spec = partition(name, leaf.shape, dict(mesh.shape))
            parts = math.prod(mesh.shape[axis] for axis in spec if axis)
            assert {shard.data.size * parts for shard in leaf.addressable_shards} == {leaf.size}, name
            split += parts > 1
    assert split == 4 * 13  # all matrices but the table of classes, which is small
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    compiled = (
        jax.jit(task.init, out_shardings=state_sharding(state, mesh, kind=task.kind)).lower(jax.random.key(0)).compile()
    )
    memory = compiled.memory_analysis()
    assert memory.output_size_in_bytes + memory.temp_size_in_bytes < 0.5 * whole


def test_the_batch_is_split_over_data_and_fsdp_and_whole_over_tensor():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    batch = put_global(np.arange(8), batch_sharding(mesh))
    assert batch_shards(mesh) == 4
    assert batch_slice(mesh) == BatchSlice(index=0, count=1)
    assert sorted(tuple(shard.data.tolist()) for shard in batch.addressable_shards) == sorted(
        2 * [(0, 1), (2, 3), (4, 5), (6, 7)]
    )
