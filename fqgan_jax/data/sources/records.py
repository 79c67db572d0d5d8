"""Images as ArrayRecord shards: what `fqgan prepare` writes, and their random-access source.

A folder holds `manifest.json` and the shards of each split, `train-00000-of-00012.array_record`. A record is the label
(int32), the length of the name (uint32), the name (UTF-8), and the content of the image file.
"""

import dataclasses
import json
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fqgan_jax.config.rules import Whole
from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.shards import check_shards, open_shards
from fqgan_jax.data.sources.source import Source, sources
from fqgan_jax.data.sources.splits import EmptySplitError
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import read_json
from fqgan_jax.storage import as_path

MANIFEST = "manifest.json"
FORMAT = 1
_HEADER = struct.Struct("<iI")


class Record(NamedTuple):
    """One image; `image` is the content of its file."""

    label: int
    name: str
    image: bytes


def encode_record(record: Record) -> bytes:
    """Returns the bytes of a record."""
    name = record.name.encode(errors="surrogateescape")
    return _HEADER.pack(record.label, len(name)) + name + record.image


def decode_record(content: bytes) -> Record:
    """Inverts `encode_record`."""
    label, length = _HEADER.unpack_from(content)
    start = _HEADER.size + length
    return Record(label, content[_HEADER.size : start].decode(errors="surrogateescape"), content[start:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of records.

    Attributes:
      file: name of the file.
      count: number of records.
      bytes: size of the file.
      sha256: checksum of the file.
      labels: labels of the records in order, run-length encoded as (label, repetitions).
      skipped: reason by name of each image that could not be read.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    labels: tuple[tuple[int, int], ...]
    skipped: dict[str, str]

    @classmethod
    def from_json(cls, fields: dict) -> "Shard":
        """Reads the fields of a shard from a manifest or a note, which `check_shards` has accepted."""
        return cls(**fields | {"labels": tuple((label, count) for label, count in fields["labels"])})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a prepared folder.

    Attributes:
      class_names: names of the labels.
      splits: shards of each split.
      settings: how the images were prepared, as JSON.
      plan: hash of the source's images and of the settings.
    """

    class_names: tuple[str, ...]
    splits: dict[str, tuple[Shard, ...]]
    settings: dict
    plan: str

    def to_json(self) -> str:
        """Returns the manifest as text that begins with totals."""
        totals = {
            split: {
                "images": sum(shard.count for shard in shards),
                "bytes": sum(shard.bytes for shard in shards),
                "skipped": sum(len(shard.skipped) for shard in shards),
            }
            for split, shards in self.splits.items()
        }
        return json.dumps({"format": FORMAT, "totals": totals} | dataclasses.asdict(self), indent=1)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads the manifest of a folder.

        Raises:
          UserError: the manifest is missing or damaged, or has a later format.
        """
        path = folder / MANIFEST
        fields = read_json(path, remedy="prepare the folder again")
        found = fields.get("format")
        check(found == FORMAT, f"{folder} has format {found!r}; this version of fqgan_jax reads {FORMAT}.")
        try:
            for shards in fields["splits"].values():
                check_shards(shards, f"{path}: ")
            return cls(
                class_names=tuple(fields["class_names"]),
                splits={split: tuple(map(Shard.from_json, shards)) for split, shards in fields["splits"].items()},
                settings=fields["settings"],
                plan=fields["plan"],
            )
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error!r}): prepare the folder again.") from error


def _check_labels(shard: Shard, num_classes: int, path: Path) -> None:
    """Raises `UserError` unless the shard's labels are as many as its records, and each is a class."""
    label, repetitions = Whole(0, num_classes - 1), Whole(1)
    for run in shard.labels:
        label.check(f"{path}: a label of {shard.file}", run[0])
        repetitions.check(f"{path}: a number of labels of {shard.file}", run[1])
    count = sum(repetitions for _, repetitions in shard.labels)
    check(count == shard.count, f"{path}: {shard.file} has {shard.count} records and {count} labels.")


@sources("records")
class RecordFolder(Source):
    """One split of a folder that `fqgan prepare` wrote."""

    usage = "a folder that fqgan prepare wrote"

    @staticmethod
    def recognizes(name: str) -> bool:
        """Whether a name is that of a folder with a manifest."""
        return (as_path(name) / MANIFEST).is_file()

    def __init__(self, name: str, split: str, **_):
        self._folder = folder = as_path(name)
        manifest = Manifest.read(folder)
        shards = [shard for shard in manifest.splits.get(split, ()) if shard.count]
        if not shards:
            raise EmptySplitError(f"The prepared folder {folder} has no image for the {split} split.")
        self.class_names = manifest.class_names
        self._title = f"{folder} ({split})"
        for shard in shards:
            _check_labels(shard, len(self.class_names), folder / MANIFEST)
        self._records = open_shards(folder, {shard.file: (shard.count, shard.bytes) for shard in shards})
        runs = np.array([run for shard in shards for run in shard.labels], np.int32)
        self._labels = np.repeat(runs[:, 0], runs[:, 1])

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        """Name of the image in the source from which it was prepared; its position if the record is damaged."""
        try:
            return decode_record(self._records[index]).name
        except (RuntimeError, ValueError, struct.error):
            return f"record {index} of {self._title}"

    def label(self, index: int) -> int:
        """Label, from the manifest."""
        return int(self._labels[index])

    def files(self) -> list[Path]:
        """The manifest, which holds a checksum of every shard."""
        return [self._folder / MANIFEST]

    def encoded(self, index: int) -> bytes:
        """Content of the image file, from the record."""
        try:
            return decode_record(self._records[index]).image
        except (RuntimeError, ValueError, struct.error) as error:
            raise UnreadableImageError(f"damaged record: {error}") from error
