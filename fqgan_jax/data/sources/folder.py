"""A folder of images with one subfolder per class."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from fqgan_jax.data.sources.source import FALLBACK, Source, sources
from fqgan_jax.data.sources.splits import EmptySplitError, present_splits, split_positions
from fqgan_jax.errors import UserError
from fqgan_jax.files import read_regular_file
from fqgan_jax.storage import ObjectPath, Stat, as_path, cached_bytes, in_storage

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


@sources(FALLBACK)
class ImageFolder(Source):
    """A folder with one subfolder per class, in alphabetical order; images without subfolders are one class.

    If the folder holds `train` and `val` folders, these are the splits. Otherwise a fixed part of each class, chosen by
    a hash of the file names, is held out for validation.
    """

    usage = "a folder of images with one subfolder a class"

    @staticmethod
    def recognizes(name: str) -> bool:
        """Whether a name is that of a folder."""
        return as_path(name).is_dir()

    def __init__(self, name: str, split: str, *, validation_fraction: float = 0.05, data_dir: str | None = None):
        del data_dir  # used by tensorflow-datasets only
        folder = as_path(name)
        if folder.is_file():
            raise UserError(f"{folder} is a file: give a folder of images, of tar files or of prepared records.")
        if not folder.is_dir():
            known = ", ".join(kind.usage for kind in sources.values() if kind.usage)
            raise UserError(f"There is no folder {folder}: give one of {known}.")
        splits = present_splits(_subfolders(folder))
        if splits:
            folder = folder / splits[split]
        if in_storage(folder):
            self._objects = _objects(folder)
            by_class = _by_class(self._objects) or {folder.name: sorted(self._objects)}
        else:
            by_class = {name: found for name in _subfolders(folder) if (found := _image_files(folder, name))}
            by_class = by_class or {folder.name: _image_files(folder, "")}
        self.root = str(folder)
        self.class_names = tuple(by_class)
        files = [(file, label) for label, class_files in enumerate(by_class.values()) for file in class_files]
        if not files:
            extensions = " ".join(sorted(EXTENSIONS))
            raise UserError(f"The folder {folder} holds no images (looked for {extensions}, also in its subfolders).")
        if not splits:
            files = [files[i] for i in split_positions(files, split, validation_fraction)]
        if not files:
            raise EmptySplitError(
                f"The folder {folder} has no image for the {split} split: add images or change the fraction."
            )
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """Path of the file."""
        return os.path.join(self.root, self._files[index][0])

    def label(self, index: int) -> int:
        """Position of the subfolder among all subfolders that hold images."""
        return self._files[index][1]

    def files(self) -> Iterator[Path]:
        """A file for each image."""
        root = as_path(self.root)
        if in_storage(root):
            return (as_path((root / file).known(self._objects[file])) for file, _ in self._files)
        return (root / file for file, _ in self._files)

    def encoded(self, index: int) -> bytes:
        """Content of the file."""
        path = as_path(self.name(index))
        if in_storage(path):
            found = self._objects[self._files[index][0]]
            return cached_bytes(path, found.version, stop=found.st_size)
        return read_regular_file(path)


def _objects(root: ObjectPath) -> dict[str, Stat]:
    """Returns the images below a path in object storage, by their names from there on."""
    names = {str(path).removeprefix(f"{root}/"): path.stat() for path in root.files()}
    return {name: found for name, found in names.items() if _is_image(name)}


def _is_image(name: str) -> bool:
    is_hidden = any(part.startswith(".") for part in name.split("/"))
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not is_hidden


def _by_class(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the names in each subfolder."""
    by_class: dict[str, list[str]] = {}
    for name in sorted(names):
        subfolder, _, rest = name.partition("/")
        if rest:
            by_class.setdefault(subfolder, []).append(name)
    return by_class


def _subfolders(folder: Path) -> list[str]:
    if in_storage(folder):
        return [path.name for path in folder.iterdir()]  # a file among them has no name of a split
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _image_files(root: Path, subfolder: str) -> list[str]:
    """Returns paths, relative to the root, of the images in a subfolder; broken links are included."""

    def raise_error(error: OSError):
        raise UserError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    files = []
    for path, folders, names in os.walk(root / subfolder, onerror=raise_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(path, root)
        files += [
            os.path.normpath(os.path.join(relative, name))
            for name in names
            if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")
        ]
    return sorted(files)
