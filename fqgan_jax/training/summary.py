"""What the work folders of runs say about them: how far they are, how fast, and what they measured last."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from fqgan_jax.checkpoints import FOLDER
from fqgan_jax.errors import UserError
from fqgan_jax.files import is_locked, read_json
from fqgan_jax.training.logging import newest_values, read_log, validation_metrics
from fqgan_jax.training.workdir import CONFIG, LOCK


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run as its work folder describes it.

    Attributes:
      workdir: its work folder.
      task: name of the task; "" if its config is damaged.
      step: of the newest line of its log.
      num_steps: `train.steps`, with which it ends.
      is_running: whether a process trains in the folder.
      images_per_second: in the newest line that has it; None before the first.
      metrics: newest value of each validation metric.
    """

    workdir: Path
    task: str
    step: int
    num_steps: int
    is_running: bool
    images_per_second: float | None
    metrics: Mapping[str, float]

    @classmethod
    def read(cls, workdir: Path) -> Self:
        """Reads a work folder; nothing in it changes."""
        try:
            config = read_json(workdir / CONFIG, remedy="restore it")
            task, num_steps = str(config["task"]), int(config["train"]["steps"])
        except (UserError, KeyError, TypeError, ValueError):
            task, num_steps = "", 0
        lines = read_log(workdir)
        newest = newest_values(lines)
        return cls(
            workdir=workdir,
            task=task,
            step=max((line["step"] for line in lines), default=0),
            num_steps=num_steps,
            is_running=is_locked(workdir / LOCK),
            images_per_second=newest.get("images_per_second"),
            metrics=validation_metrics(newest),
        )

    @property
    def state(self) -> str:
        """In a word."""
        if not self.task:
            return "damaged"
        if self.is_running:
            return "running"
        return "finished" if self.step >= self.num_steps else "stopped"


def find_runs(folder: Path) -> Iterator[RunSummary]:
    """Yields the runs in a folder and its subfolders, in the order of their names; the folder may be a run itself."""
    if (folder / CONFIG).is_file() and (folder / FOLDER).is_dir():
        yield RunSummary.read(folder)  # a run holds no other
        return
    with contextlib.suppress(PermissionError):
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from find_runs(child)
