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

from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.shards import check_size
from fqgan_jax.data.sources.source import Source, sources
from fqgan_jax.data.sources.splits import EmptySplitError
from fqgan_jax.errors import UserError

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
        """Reads the fields of a shard from a manifest or a note."""
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
        try:
            fields = json.loads((folder / MANIFEST).read_text())
            if fields["format"] != FORMAT:
                raise UserError(f"{folder} has format {fields['format']}; this version of fqgan_jax reads {FORMAT}.")
            return cls(
                class_names=tuple(fields["class_names"]),
                splits={split: tuple(map(Shard.from_json, shards)) for split, shards in fields["splits"].items()},
                settings=fields["settings"],
                plan=fields["plan"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / MANIFEST} cannot be read ({error}): prepare the folder again.") from error


@sources("records")
class RecordFolder(Source):
    """One split of a folder that `fqgan prepare` wrote."""

    usage = "a folder that fqgan prepare wrote"

    @staticmethod
    def recognizes(name: str) -> bool:
        """Whether a name is that of a folder with a manifest."""
        return (Path(name) / MANIFEST).is_file()

    def __init__(self, name: str, split: str, **_):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        folder = Path(name)
        manifest = Manifest.read(folder)
        shards = [shard for shard in manifest.splits.get(split, ()) if shard.count]
        if not shards:
            raise EmptySplitError(f"The prepared folder {folder} has no image for the {split} split.")
        for shard in shards:
            check_size(folder / shard.file, shard.bytes)
        self.class_names = manifest.class_names
        self._title = f"{folder} ({split})"
        runs = np.array([run for shard in shards for run in shard.labels], np.int32)
        self._labels = np.repeat(runs[:, 0], runs[:, 1])
        self._records = ArrayRecordDataSource([str(folder / shard.file) for shard in shards])

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

    def encoded(self, index: int) -> bytes:
        """Content of the image file, from the record."""
        try:
            return decode_record(self._records[index]).image
        except (RuntimeError, ValueError, struct.error) as error:
            raise UnreadableImageError(f"damaged record: {error}") from error
