"""Training steps from configs alone: without data, code cache or weights."""

import dataclasses
from collections.abc import Sequence

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from fqgan_jax.config import field_names
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training.from_config import check_batch_size
from fqgan_jax.training.loop import compiled_step
from fqgan_jax.training.tasks import Task, tasks

# Fields that make the backward pass recompute something, and their values without recomputation.
COMPUTED_ONCE = {"model.remat": "none", "train.accumulate": 1}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class StepInputs:
    """Inputs of a training step: arrays, or a shape or a sharding for each of them."""

    state: PyTree
    frozen: PyTree
    batch: PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """The training step of a config.

    Attributes:
      task: which the config trains.
      mesh: over all its devices.
      function: the jitted step, `(state, frozen, batch) -> (state, metrics)`.
      shapes: shapes of the inputs.
      shardings: shardings of the inputs on the mesh.
    """

    task: Task
    mesh: Mesh
    function: jax.stages.Wrapped
    shapes: StepInputs
    shardings: StepInputs

    @property
    def flops(self) -> float:
        """Operations of the step on all devices, with those that the backward pass computes again."""
        return count_flops(self.task.step, self.shapes.state, self.shapes.frozen, self.shapes.batch)

    def lower(self) -> jax.stages.Lowered:
        """Lowers the step for its mesh."""
        return self.function.lower(self.shapes.state, self.shapes.frozen, self.shapes.batch)

    def random_inputs(self, key: jax.Array) -> StepInputs:
        """Returns a fresh state, random frozen networks and a batch of noise, on the devices of the mesh."""
        return StepInputs(
            state=jax.jit(self.task.init, out_shardings=self.shardings.state)(key),
            frozen=jax.jit(self.task.random_frozen, out_shardings=self.shardings.frozen)(key),
            batch=jax.jit(self.task.random_batch, out_shardings=self.shardings.batch)(key),
        )


def make_step(
    config: ConfigDict, *, devices: Sequence[jax.Device] | None = None, tokenizer_config: ConfigDict | None = None
) -> Step:
    """Returns the step that `fqgan train` runs on the devices.

    Args:
      config: config of the training run.
      devices: by default all that this process sees.
      tokenizer_config: whose codes a generator's step uses if its config names no code cache.

    Raises:
      UserError: sizes that cannot work together.
    """
    tasks.check(config.task, "task")
    mesh = make_mesh(dict(config.mesh), devices)
    shards = batch_shards(mesh)
    check_batch_size(config.data.batch_size, shards)
    task, key = tasks[config.task].without_data(config, shards, tokenizer_config=tokenizer_config), jax.random.key(0)
    shapes = StepInputs(
        state=jax.eval_shape(task.init, key),
        frozen=jax.eval_shape(task.random_frozen, key),
        batch=jax.eval_shape(task.random_batch, key),
    )
    shardings = StepInputs(
        state=state_sharding(shapes.state, mesh, kind=task.kind),
        frozen=jax.tree.map(lambda _: replicated(mesh), shapes.frozen),
        batch=jax.tree.map(lambda _: batch_sharding(mesh), shapes.batch),
    )
    function = compiled_step(task, shardings.state, mesh)
    return Step(task=task, mesh=mesh, function=function, shapes=shapes, shardings=shardings)


def model_flops(
    config: ConfigDict, *, devices: Sequence[jax.Device] | None = None, tokenizer_config: ConfigDict | None = None
) -> float:
    """Returns the operations, on all devices, of a step without recomputation: the measure of utilization.

    For the arguments see `make_step`.
    """
    plain = config.copy_and_resolve_references()
    known = field_names(plain)
    plain.update_from_flattened_dict({name: COMPUTED_ONCE[name] for name in COMPUTED_ONCE if name in known})
    return make_step(plain, devices=devices, tokenizer_config=tokenizer_config).flops
