"""Tar files in WebDataset layout: members that share a name up to the first dot are one example.

An example has an image (`.jpg`, `.png`, ...) and usually a `.cls` member with the number or the name of its class.
`classnames.txt` beside the tar files names numbered classes, one per line. Without `.cls` the folder is the class.
"""

import dataclasses
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import NamedTuple

from fqgan_jax.data.sources.folder import EXTENSIONS
from fqgan_jax.data.sources.source import Source, sources
from fqgan_jax.data.sources.splits import SPLIT_NAMES, EmptySplitError, present_splits, split_of, split_positions
from fqgan_jax.errors import UserError, check
from fqgan_jax.storage import as_path, cached_bytes, cached_result, in_storage

CLASS_NAMES = "classnames.txt"
MOST_CLASSES = 2**20  # more are no classes, but damage
PARALLEL = 16  # tar files in object storage that are looked through at a time
_LONGEST_CLASS = 4096  # bytes of a class in a `.cls` member


class _Member(NamedTuple):
    """An image inside a tar file: number of the tar file, name, and position and size of its content in bytes."""

    tar: int
    name: str
    offset: int
    size: int


def tar_files(path: Path) -> list[Path]:
    """Returns the tar file itself, or those in a folder and in its train and val folders; empty for anything else."""
    if path.suffix == ".tar" and path.is_file():
        return [path]
    # Object storage would be asked for each class of an image folder.
    folders = sum(SPLIT_NAMES.values(), ()) if in_storage(path) else ("*",)
    return sorted(path.glob("*.tar")) or sorted(file for name in folders for file in path.glob(f"{name}/*.tar"))


@sources("tars")
class TarShards(Source):
    """Images inside uncompressed tar files, read by position.

    The splits are `train` and `val` folders, or words of the file names (`imagenet-val-000.tar`). Otherwise a fixed
    part of each class is held out for validation.
    """

    usage = "tar files in WebDataset layout"

    @staticmethod
    def recognizes(name: str) -> bool:
        """Whether a name is that of a tar file or of a folder of tar files."""
        return bool(tar_files(as_path(name)))

    def __init__(self, name: str, split: str, *, validation_fraction: float = 0.05, data_dir: str | None = None):
        del data_dir  # used by tensorflow-datasets only
        files, has_splits = _files_of_split(tar_files(as_path(name)), split)
        index = _Index()
        for file, entries in zip(files, _all_entries(files), strict=True):
            index.add(file, entries)
        members = list(index.images.values())
        self._tars = [str(file) for file in files]
        self._versions = [file.stat().version if in_storage(file) else "" for file in files]
        self.class_names, labels = _labels(index.written_classes(), files[0].parent)
        names_and_labels = [(member.name, label) for member, label in zip(members, labels, strict=True)]
        if not members:
            raise UserError(f"The tar files of {name} hold no images (looked for {' '.join(sorted(EXTENSIONS))}).")
        chosen: Sequence[int] = range(len(members))
        if not has_splits:
            chosen = split_positions(names_and_labels, split, validation_fraction)
        self._members = [members[i] for i in chosen]
        self._labels = [labels[i] for i in chosen]
        if not self._members:
            raise EmptySplitError(f"The tar files of {name} have no image for the {split} split.")

    def __len__(self) -> int:
        return len(self._members)

    def name(self, index: int) -> str:
        """Name of the member."""
        return self._members[index].name

    def label(self, index: int) -> int:
        """Number of the class."""
        return self._labels[index]

    def files(self) -> list[Path]:
        """The tar files."""
        return list(map(as_path, self._tars))

    def encoded(self, index: int) -> bytes:
        """Content of the member."""
        member = self._members[index]
        path = as_path(self._tars[member.tar])
        if in_storage(path):
            stop = member.offset + member.size
            return cached_bytes(path, self._versions[member.tar], start=member.offset, stop=stop)
        with open(self._tars[member.tar], "rb") as file:
            return os.pread(file.fileno(), member.size, member.offset)


def _files_of_split(files: list[Path], split: str) -> tuple[list[Path], bool]:
    """Returns the tar files of a split and whether folders or file names define the splits."""
    folders = present_splits({file.parent.name for file in files})
    if folders:
        return [file for file in files if file.parent.name == folders[split]], True
    if {"train", "validation"} <= {split_of(file.name) for file in files}:
        return [file for file in files if split_of(file.name) == split], True
    return files, False


@dataclasses.dataclass
class _Index:
    """Images and written classes of tar files by example, in the order of the files."""

    images: dict[str, _Member] = dataclasses.field(default_factory=dict)
    classes: dict[str, str] = dataclasses.field(default_factory=dict)
    files: list[Path] = dataclasses.field(default_factory=list)

    def add(self, path: Path, entries: "Iterable[_Entry]") -> None:
        """Adds the members of a tar file.

        Raises:
          UserError: two images have one name.
        """
        self.files.append(path)
        for entry in entries:
            self._add_entry(entry, len(self.files) - 1)

    def _add_entry(self, entry: "_Entry", number: int) -> None:
        folder, _, base = entry.name.rpartition("/")
        stem = base.partition(".")[0]
        key = f"{folder}/{stem}" if folder else stem
        if entry.written is not None:
            self.classes[key] = entry.written
            return
        if key in self.images:
            first, second = self.files[self.images[key].tar], self.files[number]
            raise UserError(f"There are two images named {key} ({first}, {second}): rename one.")
        self.images[key] = _Member(number, entry.name, entry.offset, entry.size)

    def written_classes(self) -> list[str]:
        """Returns the class of each image as its `.cls` member says, or else its folder."""
        return [self.classes.get(key, key.rpartition("/")[0]) for key in self.images]


class _Entry(NamedTuple):
    """An image, or the class that a `.cls` member holds: name, position and size in bytes, and the class."""

    name: str
    offset: int
    size: int
    written: str | None


def _all_entries(files: Sequence[Path]) -> Iterator[list[_Entry]]:
    """Yields the entries of each tar file; object storage is asked for many at a time.

    Raises:
      UserError: a file is damaged or compressed.
    """
    if not in_storage(files[0]):
        yield from map(_read_entries, files)
        return
    with ThreadPoolExecutor(PARALLEL) as threads:
        yield from threads.map(_read_entries, files)


def _read_entries(path: Path) -> list[_Entry]:
    try:
        return list(_entries(path))
    except (tarfile.TarError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as an uncompressed tar file: {error}.") from error


def _entries(path: Path) -> Iterable[_Entry]:
    """Returns the images and classes of a tar file, in order; what object storage holds is looked through once."""
    if not in_storage(path):
        with tarfile.open(path, "r:") as tar:
            yield from _scan(tar, path)
        return

    def scan() -> bytes:
        with path.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return json.dumps(list(_scan(tar, path))).encode()

    yield from (_Entry(*fields) for fields in json.loads(cached_result(path, "tar index", scan)))


def _scan(tar: tarfile.TarFile, path: PurePath) -> Iterator[_Entry]:
    for entry in tar:
        stem, _, extension = entry.name.rpartition("/")[2].partition(".")
        if not entry.isfile() or not stem:
            continue
        if f".{extension.lower()}" in EXTENSIONS:
            yield _Entry(entry.name, entry.offset_data, entry.size, None)
        elif extension == "cls":
            if entry.size > _LONGEST_CLASS:
                raise UserError(f"{entry.name} in {path} has {entry.size} bytes, but holds one class.")
            content = tar.extractfile(entry)
            assert content is not None  # as for every file
            yield _Entry(entry.name, entry.offset_data, entry.size, content.read().decode().strip())


def _labels(classes: list[str], folder: Path) -> tuple[tuple[str, ...], list[int]]:
    """Returns class names, and each image's position among them."""
    if not all(name.isdecimal() for name in classes):
        names = tuple(sorted(set(classes)))
        position = {name: i for i, name in enumerate(names)}
        return names, [position[name] for name in classes]
    # The digits are compared before they become a number, which could be enormous.
    largest = max((name.lstrip("0") for name in classes), key=lambda digits: (len(digits), digits), default="")
    check(
        len(largest) <= 9 and int(largest or 0) < MOST_CLASSES,
        f"A .cls member beside {folder} has the class {largest[:30]}: numbers of classes lie below {MOST_CLASSES}.",
    )
    labels = [int(name) for name in classes]
    count = max(labels, default=-1) + 1
    file = folder / CLASS_NAMES
    if not file.is_file():
        return tuple(map(str, range(count))), labels
    names = tuple(line.strip() for line in file.read_text().splitlines() if line.strip())
    if len(names) < count:
        raise UserError(
            f"{file} names {len(names)} classes, but a .cls member has class {count - 1}: add the missing names."
        )
    return names, labels
