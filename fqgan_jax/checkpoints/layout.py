"""The layout of checkpoints in a work folder, and the names of checkpoints in paths.

WORKDIR/model.json
WORKDIR/checkpoints/STEP/ITEM/...
WORKDIR/checkpoints/STEP/checksums.json
WORKDIR/checkpoints/damaged_STEP/...
"""

import dataclasses
import enum
from pathlib import Path
from typing import Literal, Self

from fqgan_jax.storage import as_path, in_storage

FOLDER = "checkpoints"
CHECKSUMS = "checksums.json"


class Item(enum.StrEnum):
    """The items (subfolders) of a checkpoint; each is read on its own."""

    PARAMS = "params"
    EMA = "ema"
    DISCRIMINATOR = "discriminator"
    REST = "rest"  # the optimizers' state and counters, which only training needs
    METRICS = "metrics"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointName:
    """One checkpoint of a run, written `WORKDIR` (the newest), `WORKDIR@best` or `WORKDIR@STEP`.

    Attributes:
      workdir: the run's work folder.
      which: "newest", "best" (by the metric in `train.keep_best`) or a step.
    """

    workdir: Path
    which: Literal["newest", "best"] | int = "newest"

    @classmethod
    def parse(cls, path: str | Path) -> Self:
        """Reads a path. A path that exists is a work folder, whatever its name."""
        path = as_path(path)
        name, _, which = path.name.rpartition("@")
        if not name or path.exists():
            return cls(workdir=path)
        if which == "best":
            return cls(workdir=path.with_name(name), which="best")
        if which.isdigit():
            return cls(workdir=path.with_name(name), which=int(which))
        return cls(workdir=path)

    def __str__(self) -> str:
        return str(self.workdir) if self.which == "newest" else f"{self.workdir}@{self.which}"

    @property
    def folder(self) -> Path:
        """The folder of all checkpoints of the run."""
        return (self.workdir / FOLDER).absolute()

    @property
    def is_of_a_run(self) -> bool:
        """Whether the path names a work folder of `fqgan train`; False for export folders and files."""
        return self.folder.is_dir()


def saved_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in `WORKDIR/checkpoints`, newest first."""
    # Orbax gives a step's folder its name only when it is complete; in object storage the checksums are written last.
    paths = [path for path in folder.glob("*") if path.name.isdigit()]
    if in_storage(folder):
        paths = [path for path in paths if (path / CHECKSUMS).exists()]
    return sorted((int(path.name) for path in paths), reverse=True)


def damaged_folders(folder: Path) -> list[Path]:
    """Checkpoints in `WORKDIR/checkpoints` that training has set aside because they are damaged."""
    return sorted(folder.glob("damaged_*"))
