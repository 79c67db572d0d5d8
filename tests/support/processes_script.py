"""What one process of many does in `test_processes.py`: `processes_script.py ADDRESS COUNT INDEX FOLDER`.

The folder's `jobs.json` lists what is to do, one after the other: to train, or to write the batches that this process
sees.
"""

import functools
import json
import sys
import traceback
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from fqgan_jax.config import from_json
from fqgan_jax.data.loader import to_devices
from fqgan_jax.sharding import processes, rules
from fqgan_jax.sharding.mesh import batch_sharding, batch_shards, batch_slice, make_mesh
from fqgan_jax.storage import as_path
from fqgan_jax.training import loop, tasks, train


def gathered(array: jax.Array) -> np.ndarray:
    """The whole of an array."""
    return np.asarray(array) if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True)


def batches(config, start: int, count: int) -> dict[str, np.ndarray]:
    """The global batches of `count` steps as the loop gets them, stacked."""
    mesh = make_mesh(dict(config.mesh))
    task = tasks[config.task](config, batch_shards(mesh))
    stream = to_devices(task.batches(start, batch_slice(mesh)), batch_sharding(mesh))
    rows = [jax.tree.map(gathered, next(stream)) for _ in range(count)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def main(address: str, count: str, index: str, folder: str) -> None:
    folder = Path(folder)
    processes.start(coordinator=address, num_processes=int(count), process_id=int(index), timeout_seconds=120)
    # So that fsdp splits these tiny networks too. This process runs whole trainings, which have no field for it.
    loop.state_sharding = functools.partial(rules.state_sharding, smallest_split=256)
    for job in json.loads((folder / "jobs.json").read_text()):
        config = from_json(json.dumps(job["config"]))
        if "batches" in job:
            np.savez(folder / f"{job['name']}.{index}.npz", **batches(config, *job["batches"]))
        else:
            train(config, as_path(job.get("workdir", str(folder / job["name"]))), job.get("stop_after"))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        processes.leave(1)
        raise
