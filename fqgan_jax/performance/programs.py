"""The programs that can be planned, from configs alone."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from fqgan_jax.errors import check, check_choice
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.performance.inference import Inference, decoding, encoding, sampling
from fqgan_jax.performance.tasks import Step, make_step, model_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.training.from_config import check_batch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A program, and what it must do at least.

    Attributes:
      name: in `PROGRAMS`.
      devices: in the order of the mesh.
      batch_size: size of the global batch.
      lower: lowers the program.
      memory: bytes of its inputs on each device, by kind.
      floor: bytes that each device must move at least.
      flops: operations on all devices, including those that a backward pass recomputes.
      model_flops: operations on all devices without recomputation.
    """

    name: str
    devices: Sequence[jax.Device]
    batch_size: int
    lower: Callable[[], jax.stages.Lowered]
    memory: dict[str, float]
    floor: float
    flops: float
    model_flops: float


def make_program(
    name: str, config: ConfigDict, devices: Sequence[jax.Device], *, tokenizer_config: ConfigDict | None = None
) -> Program:
    """Returns the program of a config for devices.

    Args:
      name: one of `PROGRAMS`.
      config: config of a training run; its `data.batch_size` is that of the program.
      devices: devices of a topology, or of this machine.
      tokenizer_config: see `make_step`.

    Raises:
      UserError: sizes that cannot work together, or a program of another task.
    """
    check_choice("program", name, PROGRAMS)
    row = PROGRAMS[name]
    check(row.task in (None, config.task), f"{name} is a program of a {row.task}: this config trains a {config.task}.")
    return row.make(config, devices, tokenizer_config)


def _step(config: ConfigDict, devices: Sequence[jax.Device], tokenizer_config: ConfigDict | None) -> Program:
    """The training step; it must read all of its inputs and write the state."""
    step = make_step(config, devices=devices, tokenizer_config=tokenizer_config)
    memory = input_bytes(step)
    state = sum(memory[kind] for kind in ("parameters", "optimizer", "moving average"))
    return Program(
        name="step",
        devices=list(step.mesh.devices.flat),
        batch_size=config.data.batch_size,
        lower=step.lower,
        memory=memory,
        floor=sum(memory.values()) + state,
        flops=step.flops,
        model_flops=model_flops(config, devices=devices, tokenizer_config=tokenizer_config),
    )


def input_bytes(step: Step) -> dict[str, float]:
    """Returns the bytes on each device of what the step takes, by kind."""
    bytes_of = jax.tree.map(_bytes_on_device, step.shapes, step.shardings)
    state, adversary = bytes_of.state, bytes_of.state.adversary
    sums = {
        "parameters": _total(state.params),
        "optimizer": _total(state.opt_state),
        "moving average": _total(state.ema),
        "frozen networks": _total(bytes_of.frozen),
        "batch": _total(bytes_of.batch),
    }
    if adversary is not None:
        sums["parameters"] += _total(adversary.params)
        sums["optimizer"] += _total(adversary.opt_state)
    return sums


def _bytes_on_device(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> float:
    shard = jax.ShapeDtypeStruct(sharding.shard_shape(leaf.shape), leaf.dtype)
    return shard.size * shard.dtype.itemsize


def _total(tree: PyTree) -> float:
    return sum(jax.tree.leaves(tree))


def _inference(name: str, inference: Inference, *, devices: Sequence[jax.Device], batch_size: int) -> Program:
    """The model on every device, and the batch split over them."""
    mesh = make_mesh({"data": -1}, devices)
    shards = batch_shards(mesh)
    check_batch_size(batch_size, shards)
    whole, split = replicated(mesh), batch_sharding(mesh)
    params, batch = inference.shapes, inference.batch_shapes(batch_size)
    function = jax.jit(inference.function, in_shardings=(whole, split), out_shardings=split)
    flops = count_flops(inference.function, params, batch)
    memory = {
        kind: _total(jax.tree.map(lambda leaf, sharding=sharding: _bytes_on_device(leaf, sharding), tree))
        for kind, tree, sharding in (("parameters", params, whole), ("batch", batch, split))
    }
    return Program(
        name=name,
        devices=list(mesh.devices.flat),
        batch_size=batch_size,
        lower=lambda: function.lower(params, batch),
        memory=memory,
        floor=inference.floor(params, batch_size // shards),
        flops=flops,
        model_flops=flops,
    )


def _sample(config: ConfigDict, devices: Sequence[jax.Device], tokenizer_config: ConfigDict | None) -> Program:
    inference = sampling(config, tokenizer_config)
    return _inference("sample", inference, devices=devices, batch_size=config.data.batch_size)


def _encode(config: ConfigDict, devices: Sequence[jax.Device], _: ConfigDict | None) -> Program:
    return _inference("encode", encoding(config), devices=devices, batch_size=config.data.batch_size)


def _decode(config: ConfigDict, devices: Sequence[jax.Device], _: ConfigDict | None) -> Program:
    return _inference("decode", decoding(config), devices=devices, batch_size=config.data.batch_size)


@dataclasses.dataclass(frozen=True)
class _Row:
    """What makes a program, and the task whose program it is (None: every task has it)."""

    make: Callable[[ConfigDict, Sequence[jax.Device], ConfigDict | None], Program]
    task: str | None = None


PROGRAMS = {
    "step": _Row(_step),
    "sample": _Row(_sample, "generator"),
    "encode": _Row(_encode, "tokenizer"),
    "decode": _Row(_decode, "tokenizer"),
}
