"""Tar files in WebDataset layout: members that share a name up to the first dot make an example.

An example has an image (`.jpg`, `.png`, ...) and usually a `.cls` with the number or name of its class. The names of
numbered classes stand in `classnames.txt` beside the tar files, one a line. Without `.cls` the folder is the class.
"""

import os
import tarfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fqgan_jax.data.images import UnreadableImage, read_image
from fqgan_jax.data.sources.folder import EXTENSIONS
from fqgan_jax.data.sources.splits import EmptySplit, present_splits, share, split_of
from fqgan_jax.errors import UserError

CLASS_NAMES = "classnames.txt"


class _Member(NamedTuple):
    """An image inside a tar file."""

    tar: int
    name: str
    offset: int
    size: int


def tar_files(path: Path) -> list[Path]:
    """The tar file itself, or those in a folder (also in its train and val folders); empty for anything else."""
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return sorted(path.glob("*.tar")) or sorted(path.glob("*/*.tar"))


class TarShards:
    """Images inside uncompressed tar files, read by position.

    Splits are `train` and `val` folders, or words of the files' names (`imagenet-val-000.tar`); else a share of each
    class is kept aside for validation.
    """

    def __init__(self, path: Path, split: str, validation_fraction: float = 0.05):
        files = tar_files(path)
        folders = present_splits({file.parent.name for file in files})
        words = {split_of(file.name) for file in files}
        given = bool(folders) or {"train", "validation"} <= words
        if folders:
            files = [file for file in files if file.parent.name == folders[split]]
        elif given:
            files = [file for file in files if split_of(file.name) == split]
        members, classes = _index(files)
        self.root = ""
        self._tars = [str(file) for file in files]
        self.class_names, labels = _labels(classes, next(iter(files)).parent, path)
        keys = [member.name for member in members]
        chosen = range(len(keys)) if given else share(list(zip(keys, labels, strict=True)), split, validation_fraction)
        self._members = [members[i] for i in chosen]
        self._labels = [labels[i] for i in chosen]
        if not members:
            raise UserError(f"The tar files of {path} hold no images (looked for {' '.join(sorted(EXTENSIONS))}).")
        if not self._members:
            raise EmptySplit(f"The tar files of {path} have no image for the {split} split.")

    def __len__(self) -> int:
        return len(self._members)

    def name(self, index: int) -> str:
        return self._members[index].name

    def label(self, index: int) -> int:
        return self._labels[index]

    def encoded(self, index: int) -> bytes:
        member = self._members[index]
        with open(self._tars[member.tar], "rb") as file:
            return os.pread(file.fileno(), member.size, member.offset)

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        try:
            return read_image(self.encoded(index), shortest_side)
        except OSError as error:
            raise UnreadableImage(str(error)) from error


def _index(files: list[Path]) -> tuple[list[_Member], list[str]]:
    """The images of the tar files in order, and the class of each as it is written."""
    images: dict[str, _Member] = {}
    written: dict[str, str] = {}
    for number, path in enumerate(files):
        try:
            with tarfile.open(path, "r:") as tar:
                for entry in tar:
                    folder, _, base = entry.name.rpartition("/")
                    key, _, ending = base.partition(".")
                    if not entry.isfile() or not key:
                        continue
                    key = f"{folder}/{key}" if folder else key
                    if f".{ending.lower()}" in EXTENSIONS:
                        if key in images:
                            first = files[images[key].tar]
                            raise UserError(f"There are two images of the name {key} ({first}, {path}): rename one.")
                        images[key] = _Member(number, entry.name, entry.offset_data, entry.size)
                    elif ending == "cls":
                        written[key] = tar.extractfile(entry).read().decode().strip()
        except (tarfile.TarError, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as an uncompressed tar file: {error}.") from error
    return list(images.values()), [written.get(key, key.rpartition("/")[0]) for key in images]


def _labels(classes: list[str], *folders: Path) -> tuple[tuple[str, ...], list[int]]:
    """Class names, and each image's number among them."""
    numbered = all(name.isdecimal() for name in classes)
    if not numbered:
        names = tuple(sorted(set(classes)))
        number = {name: i for i, name in enumerate(names)}
        return names, [number[name] for name in classes]
    labels = [int(name) for name in classes]
    file = next((folder / CLASS_NAMES for folder in folders if (folder / CLASS_NAMES).is_file()), None)
    count = max(labels, default=-1) + 1
    if file is None:
        return tuple(map(str, range(count))), labels
    names = tuple(line.strip() for line in file.read_text().splitlines() if line.strip())
    if len(names) < count:
        raise UserError(f"{file} names {len(names)} classes, but a .cls speaks of class {count - 1}: add the others.")
    return names, labels
