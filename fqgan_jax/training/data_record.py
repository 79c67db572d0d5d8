"""What data a run began with, so that a resumed run notices that it has changed."""

import json
from pathlib import Path

from tqdm import tqdm

from fqgan_jax.errors import UserError
from fqgan_jax.files import read_json, write_atomically
from fqgan_jax.sharding import processes
from fqgan_jax.training.tasks import Task

RECORD = "data.json"


def check_data(task: Task, workdir: Path) -> dict[str, str]:
    """Returns the record of the task's data.

    The first process alone looks, because each host may hold a copy of its own.

    Raises:
      UserError: the run in the work folder began with other data, and `data.allow_changes` does not allow it.
    """
    found, problem = {}, ""
    if processes.is_first():
        verify = task.config.data.verify
        found = {"verify": verify, "state": task.data_state(verify)}
        path = workdir / RECORD
        recorded = read_json(path, remedy="restore it, or remove it to begin a new record") if path.exists() else found
        if recorded.get("verify") == verify and recorded.get("state") != found["state"]:
            problem = f"The data has changed since the run in {workdir} began ({_COMPARED[verify]})."
    problem = processes.exchange(problem)[0]
    if problem and not task.config.data.allow_changes:
        raise UserError(
            f"{problem} Put back the data that it began with, choose another --workdir, or go on with the new data by "
            "--config.data.allow_changes=True."
        )
    if problem:
        tqdm.write(f"{problem} The run goes on with it, because data.allow_changes is set.")
    return found


def record_data(found: dict[str, str], workdir: Path) -> None:
    """Writes the record of a run that is known to be valid."""
    if processes.is_first():
        write_atomically(workdir / RECORD, json.dumps(found, indent=2))


# What `data.verify` compares.
_COMPARED = {
    "names": "names or classes",
    "files": "names, classes, or sizes or times of its files",
    "content": "names, classes, or what its files hold",
}
