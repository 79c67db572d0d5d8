"""The work folder of a run: its config, and whether a run may start or continue in it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fqgan_jax.checkpoints import ModelDescription, read_description, write_description
from fqgan_jax.checkpoints.description import DESCRIPTION
from fqgan_jax.config import check_config, from_json, to_json, with_defaults
from fqgan_jax.config.rules import flat
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import check_writable, lock_file, write_atomically
from fqgan_jax.sharding import processes
from fqgan_jax.training.tasks import Task, tasks

CONFIG = "config.json"
LOCK = ".lock"
# Fields that may change between runs in one work folder, because they do not change what is computed; for train.steps
# see `check_learning_rates`.
FREE_FIELDS = (
    *("train.", "mesh.", "sample.", "evaluation."),
    *("data.num_threads", "data.num_workers", "data.verify", "data.allow_changes", "data.cache_dir"),
    "data.cache_gb",
)
BOUND_FIELDS = ("train.freeze", "train.init_from")  # which do


@contextmanager
def exclusive(workdir: Path) -> Iterator[None]:
    """Keeps other trainings out of a work folder while the block runs.

    Raises:
      UserError: another process trains there, or the folder cannot be made or written.
    """
    if not processes.is_first():
        yield
        return
    check_writable(workdir)
    check(not workdir.exists() or workdir.is_dir(), f"{workdir} is a file: choose another --workdir.")
    new = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    refusal = f"Another training runs in {workdir}: wait for it, stop it, or choose another --workdir."
    try:
        with ExitStack() as stack:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_file(workdir / LOCK, refusal=refusal))
            except OSError as error:
                raise UserError(f"{workdir} cannot be used ({error.strerror}): choose another --workdir.") from error
            yield
    finally:
        for folder in new:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # the run was refused


def complete_config(config: ConfigDict, *, where: str = "") -> ConfigDict:
    """Returns the config with its task's default for every field that it lacks.

    Configs saved by an earlier version lack the fields that were added since.

    Args:
      config: the config.
      where: where it was read, for messages: "runs/x/config.json: ".

    Raises:
      UserError: there is no such task, or a field is not what it may be.
    """
    tasks.check(config.task, f"{where}task")
    complete = with_defaults(config, tasks[config.task].defaults())
    check_config(complete, where=where)
    return complete


def check_workdir(config: ConfigDict, workdir: Path) -> None:
    """Raises `UserError` if the work folder belongs to a run with another config; names the fields that differ."""
    if not (workdir / CONFIG).exists():
        return
    saved, given = flat(saved_config(workdir)), flat(complete_config(config))
    differing = [
        name
        for name in sorted(saved.keys() | given.keys())
        if (name in BOUND_FIELDS or not name.startswith(FREE_FIELDS)) and saved.get(name) != given.get(name)
    ]
    if differing:
        changes = ", ".join(f"{name} {saved.get(name)!r} -> {given.get(name)!r}" for name in differing[:5])
        raise UserError(
            f"The work folder {workdir} holds a run with another config ({changes}): "
            "choose another --workdir, or the config it was started with." + _missing_losses(saved, given)
        )


def _missing_losses(saved: dict, given: dict) -> str:
    """A sentence about losses of plugins that the run used and this command does not know; empty if there are none."""
    names = [name.removeprefix("loss.") for name in saved if name.startswith("loss.") and name not in given]
    return f" The run used the loss {', '.join(names)}: give the file that adds it with --plugin FILE." if names else ""


def check_description(description: ModelDescription, workdir: Path) -> None:
    """Raises `UserError` if the work folder describes another model, such as one for codes of another tokenizer.

    Only fields that both descriptions have are compared: an earlier version wrote fewer.
    """
    if not (workdir / DESCRIPTION).exists():
        return
    saved, given = _compared(read_description(workdir)), _compared(description)
    differing = [name for name in sorted(saved.keys() & given.keys()) if saved[name] != given[name]]
    if differing:
        changes = ", ".join(f"{name} {saved[name]!r} -> {given[name]!r}" for name in differing[:5])
        raise UserError(
            f"The work folder {workdir} holds another model ({changes}), although the config is the same: the data "
            "that it was trained on has changed. Choose another --workdir, or the data it was started with."
        )


def check_learning_rates(task: Task, workdir: Path, step: int) -> None:
    """Raises `UserError` if the steps made so far would have had other learning rates with the task's `train.steps`.

    A run with a constant rate can be extended. A schedule that ends with the training cannot, once it falls.

    Args:
      task: task of the run, with the config that is to continue it.
      workdir: work folder of the run; its saved config has the `train.steps` of the steps made so far.
      step: how many those are.
    """
    if not (workdir / CONFIG).exists():
        return
    before, now = saved_config(workdir).train.steps, task.config.train.steps
    if before == now:
        return
    old, new = task.learning_rates(before), task.learning_rates(now)
    for name in old:
        for made in np.unique(np.linspace(0, max(step - 1, 0), 50).astype(int)):
            first, second = float(old[name](made)), float(new[name](made))
            if not np.isclose(first, second, rtol=1e-6, atol=0):
                raise UserError(
                    f"The run in {workdir} has made {step} of train.steps={before}, and its learning rates depend on "
                    f"that number: with train.steps={now} the {name} of step {made} would have been {second:.4g}, not "
                    f"{first:.4g}. Continue with train.steps={before}, or train anew in another --workdir."
                )


def claim_workdir(config: ConfigDict, workdir: Path, description: ModelDescription) -> None:
    """Writes the complete config and the description of a run that is known to be valid into its work folder."""
    if processes.is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / CONFIG, to_json(config))
        write_description(workdir, description)


def saved_config(workdir: Path) -> ConfigDict:
    """Returns the config of the run in a work folder, complete.

    Raises:
      UserError: it cannot be read, or a field is not what it may be.
    """
    path = workdir / CONFIG
    try:
        config = from_json(path.read_text())
        if not isinstance(config.get("task"), str):
            raise ValueError("it names no task")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or choose another --workdir.") from error
    return complete_config(config, where=f"{path}: ")


def _compared(description: ModelDescription) -> dict:
    """The parts of a description that stay while a run is continued, with tuples as the lists of JSON."""
    compared = {"kind": description.kind, "tokenizer": description.tokenizer, **description.fields}
    return json.loads(json.dumps(compared))
