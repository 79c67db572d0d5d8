"""What a training step needs on chips that are not here: compiled ahead of time for their topology."""

import dataclasses
import os
from collections.abc import Sequence

import jax

from fqgan_jax.build import check, check_batch_size
from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import batch_shards, make_mesh
from fqgan_jax.sharding.rules import state_sharding
from fqgan_jax.training.loop import TASKS, compiled_step

_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """One training step, per device, as its compiler counts it; memory in bytes.

    Attributes:
      arguments: parameters, optimizer state, frozen networks and the batch.
      temporaries: everything that lives within the step.
      outputs: results that do not take the place of arguments.
      flops: operations of the step on one device.
    """

    devices: int
    batch_size: int
    arguments: int
    temporaries: int
    outputs: int
    flops: float

    @property
    def memory(self) -> int:
        """Bytes a device needs at least."""
        return self.arguments + self.temporaries + self.outputs


def topology_devices(name: str) -> Sequence[jax.Device]:
    """Devices of a TPU topology such as "v5e:4x4", none of which is needed here.

    Raises:
      UserError: an unknown topology, or the TPU compiler is not installed.
    """
    # Without these the compiler looks for TPUs of its own and complains that there are none.
    for variable, value in _NO_TPU_HERE.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"There is no plan for topology {name!r} ({str(error).splitlines()[0]}): install the TPU compiler with "
            "pip install fqgan-jax[tpu], and choose a topology such as v5e:4x4, v5p:8x8x4 or v6e:16x16."
        ) from error


def plan_step(config, devices: Sequence[jax.Device]) -> StepPlan:
    """Compiles the config's training step for devices, from shapes alone.

    Raises:
      UserError: sizes that cannot work together.
    """
    check(config.task in TASKS, f"task is {config.task!r}: choose one of {', '.join(TASKS)}.")
    mesh = make_mesh(dict(config.mesh), devices)
    check_batch_size(config.data.batch_size, batch_shards(mesh))
    task, key = TASKS[config.task](config, batch_shards(mesh)), jax.random.key(0)
    state, frozen, batch = (jax.eval_shape(make, key) for make in (task.init, task.random_frozen, task.random_batch))
    compiled = compiled_step(task, state_sharding(state, mesh), mesh).lower(state, frozen, batch).compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    sizes = (memory.argument_size_in_bytes, memory.temp_size_in_bytes, outputs)
    return StepPlan(mesh.size, config.data.batch_size, *sizes, cost["flops"])
