"""Checkpoints in object storage, through a folder on the local disk: orbax writes and reads that one.

A checkpoint is there when its checksums are: they are uploaded last, and removed first.
"""

import functools
import tempfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fqgan_jax.checkpoints.layout import CHECKSUMS, Item, damaged_folders, saved_steps
from fqgan_jax.files import upload_folder
from fqgan_jax.storage import PARALLEL, ObjectPath, as_path, in_storage

# What is kept at hand of the checkpoints that are not restored: enough to tell which ones to keep.
_SMALL_ITEMS = (Item.METRICS,)


class Mirror:
    """The checkpoints of a run, and the local folder that stands for them; the same one if they are local.

    Attributes:
      local: the local folder.
    """

    def __init__(self, folder: Path):
        """Makes the local folder, in which the checkpoints are without their parameters."""
        self.local = folder
        self._remote: ObjectPath | None = None
        self._steps: set[int] = set()
        if not in_storage(folder):
            return
        self._remote = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="fqgan_checkpoints_", ignore_cleanup_errors=True)
        self.local = Path(self._scratch.name)
        self._steps = set(saved_steps(as_path(folder)))
        for path in folder.glob("*"):
            if path.name.isdigit() and int(path.name) not in self._steps:
                path.remove_tree()  # its upload or its removal was stopped by a kill
        for step in self._steps:
            _fetch(folder / str(step), self.local / str(step), _SMALL_ITEMS)
        for damaged in damaged_folders(as_path(folder)):
            (self.local / damaged.name).mkdir()

    def __str__(self) -> str:
        return str(self.local) if self._remote is None else f"{self._remote}, through {self.local} (TMPDIR)"

    def fetch(self, step: int) -> None:
        """Downloads all of a checkpoint."""
        if self._remote is not None:
            _fetch(self._remote / str(step), self.local / str(step), tuple(Item))

    def rename(self, step: int, name: str) -> None:
        """Gives a checkpoint another name."""
        (self.local / str(step)).rename(self.local / name)
        if self._remote is not None:
            upload_folder(self.local / name, self._remote / name, last=CHECKSUMS)
            self._remove(self._remote, step)

    def upload(self, folder: Path, step: int) -> None:
        """Uploads a checkpoint from the folder in which it is complete."""
        if self._remote is not None:
            upload_folder(folder, self._remote / str(step), last=CHECKSUMS)
            self._steps.add(step)

    def prune(self) -> None:
        """Removes the checkpoints that have been removed from the local folder."""
        if self._remote is not None:
            for step in self._steps - set(saved_steps(self.local)):
                self._remove(self._remote, step)

    def _remove(self, remote: ObjectPath, step: int) -> None:
        (remote / str(step) / CHECKSUMS).unlink(missing_ok=True)
        (remote / str(step)).remove_tree()
        self._steps.discard(step)


def local_checkpoint(folder: Path, items: Collection[Item]) -> Path:
    """Returns a local folder with items of a checkpoint: the same one, or copies that last as long as this process."""
    if not in_storage(folder):
        return folder
    return Path(_downloaded(folder, tuple(items), (folder / CHECKSUMS).read_bytes()).name, folder.name)


@functools.lru_cache(maxsize=4)
def _downloaded(folder: ObjectPath, items: tuple[Item, ...], checksums: bytes) -> tempfile.TemporaryDirectory:
    del checksums  # another content is another checkpoint
    temporary = tempfile.TemporaryDirectory(prefix="fqgan_checkpoint_", ignore_cleanup_errors=True)
    _fetch(folder, Path(temporary.name, folder.name), items)
    return temporary


def _fetch(remote: ObjectPath, local: Path, items: Collection[Item]) -> None:
    """Downloads the files of these items that are not there yet, and those beside the items."""
    paths = {}
    for path in remote.files():
        name = path.relative_to(remote)
        if len(name.parts) == 1 or name.parts[0] in items:
            paths[path] = local.joinpath(*name.parts)
    missing = {path: file for path, file in paths.items() if not file.exists()}
    for folder in {file.parent for file in missing.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(ObjectPath.download, missing.keys(), missing.values()))
