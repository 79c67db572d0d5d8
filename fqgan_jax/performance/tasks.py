"""Training tasks from configs alone: no data, no code cache, no weights."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from fqgan_jax.caches.codes import CodesManifest
from fqgan_jax.errors import check
from fqgan_jax.performance.flops import count_flops
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, replicated
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training.from_config import check_batch_size, tokenizer_fields
from fqgan_jax.training.generator_task import GeneratorTask
from fqgan_jax.training.loop import TASKS, compiled_step
from fqgan_jax.training.tokenizer_task import TokenizerTask

IMAGENET_CLASSES = 1000


class Step(NamedTuple):
    """A config's training step, its arguments as shapes, and where those lie on the mesh."""

    task: TokenizerTask | GeneratorTask
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
    check(config.task in TASKS, f"task is {config.task!r}: choose one of {', '.join(TASKS)}.")
    mesh = make_mesh(dict(config.mesh), devices)
    check_batch_size(config.data.batch_size, batch_shards(mesh))
    task, key = make_task(config, batch_shards(mesh), tokenizer_config), jax.random.key(0)
    arguments = tuple(jax.eval_shape(make, key) for make in (task.init, task.random_frozen, task.random_batch))
    sharding = state_sharding(arguments[0], mesh)
    everywhere = jax.tree.map(lambda _: replicated(mesh), arguments[1])
    split = jax.tree.map(lambda _: batch_sharding(mesh), arguments[2])
    return Step(task, mesh, compiled_step(task, sharding, mesh), arguments, (sharding, everywhere, split))


def make_task(config, num_devices: int, tokenizer_config=None):
    """The config's task; see `make_step`."""
    if config.task == "generator" and not config.data.codes:
        return GeneratorTask(config, num_devices, code_sizes(tokenizer_config))
    return TASKS[config.task](config, num_devices)


def code_sizes(tokenizer_config) -> CodesManifest:
    """What a code cache of ImageNet by a config's tokenizer would say of its sizes."""
    fields = tokenizer_fields(tokenizer_config)
    sizes = (fields["num_codebooks"], fields["codebook_size"], fields["grid"])
    return CodesManifest("", *sizes, crops=1, kind="center", seed=0, class_names=("",) * IMAGENET_CLASSES)


def model_flops(config, devices=None, tokenizer_config=None) -> float:
    """Operations of a step that computes nothing twice, on all devices: what utilization is measured by."""
    plain = config.copy_and_resolve_references()
    plain.model.remat = "none"
    if plain.task == "tokenizer":
        plain.train.accumulate = 1
    return make_step(plain, devices, tokenizer_config).flops
