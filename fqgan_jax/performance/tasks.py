"""Training tasks from configs alone: no data, no code cache, no weights."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from fqgan_jax.config import field_names
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training.from_config import check_batch_size
from fqgan_jax.training.loop import compiled_step
from fqgan_jax.training.tasks import Task, tasks

# Fields that make the backward pass compute something again, and their values with which it does not.
COMPUTED_ONCE = {"model.remat": "none", "train.accumulate": 1}


class Step(NamedTuple):
    """A config's training step, its arguments as shapes, and where those lie on the mesh."""

    task: Task
    mesh: Mesh
    function: Callable
    arguments: tuple[PyTree, PyTree, PyTree]  # state, frozen networks, batch
    shardings: tuple[PyTree, PyTree, PyTree]

    @property
    def flops(self) -> float:
        """Operations of the step on all devices, what the backward pass computes again included."""
        return count_flops(self.task.step, *self.arguments)


def make_step(config, devices=None, tokenizer_config=None) -> Step:
    """The step that `fqgan train` runs on the devices (all here by default).

    Args:
      tokenizer_config: whose codes a generator's step takes where its config names no code cache.

    Raises:
      UserError: sizes that cannot work together.
    """
    tasks.check(config.task, "task")
    mesh = make_mesh(dict(config.mesh), devices)
    check_batch_size(config.data.batch_size, batch_shards(mesh))
    task = tasks[config.task].without_data(config, batch_shards(mesh), tokenizer_config=tokenizer_config)
    key = jax.random.key(0)
    arguments = tuple(jax.eval_shape(make, key) for make in (task.init, task.random_frozen, task.random_batch))
    sharding = state_sharding(arguments[0], mesh)
    everywhere = jax.tree.map(lambda _: replicated(mesh), arguments[1])
    split = jax.tree.map(lambda _: batch_sharding(mesh), arguments[2])
    return Step(task, mesh, compiled_step(task, sharding, mesh), arguments, (sharding, everywhere, split))


def model_flops(config, devices=None, tokenizer_config=None) -> float:
    """Operations of a step that computes nothing twice, on all devices: what utilization is measured by."""
    plain = config.copy_and_resolve_references()
    known = field_names(plain)
    plain.update_from_flattened_dict({name: COMPUTED_ONCE[name] for name in COMPUTED_ONCE if name in known})
    return make_step(plain, devices, tokenizer_config).flops
