"""Images as ArrayRecord shards: what `fqgan prepare` writes, and its random-access source.

A folder holds `manifest.json` and shards of each split, `train-00000-of-00012.array_record`. A record is the label
(int32), the length of the name (uint32), the name (UTF-8) and the image file's content.
"""

import dataclasses
import json
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fqgan_jax.data.images import UnreadableImage, read_image
from fqgan_jax.data.shards import check_size
from fqgan_jax.data.sources.splits import EmptySplit
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
    """A record's bytes."""
    name = record.name.encode(errors="surrogateescape")
    return _HEADER.pack(record.label, len(name)) + name + record.image


def decode_record(content: bytes) -> Record:
    """The inverse of `encode_record`."""
    label, length = _HEADER.unpack_from(content)
    start = _HEADER.size + length
    return Record(label, content[_HEADER.size : start].decode(errors="surrogateescape"), content[start:])


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records.

    `labels` are its records' in order, as (label, how many in a row); `skipped` maps the names of images that could
    not be read to the reasons.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    labels: tuple[tuple[int, int], ...]
    skipped: dict[str, str]

    @classmethod
    def from_json(cls, fields: dict) -> "Shard":
        return cls(**fields | {"labels": tuple((label, count) for label, count in fields["labels"])})


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds. `plan` is a hash of the source's images and of how they were prepared."""

    class_names: tuple[str, ...]
    splits: dict[str, tuple[Shard, ...]]
    settings: dict
    plan: str

    def to_json(self) -> str:
        """As text, with the sums that people look for in front."""
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
        """From a folder.

        Raises:
          UserError: the manifest is unreadable, or of a later version.
        """
        try:
            fields = json.loads((folder / MANIFEST).read_text())
            if fields["format"] != FORMAT:
                raise UserError(f"{folder} has format {fields['format']}; this version of fqgan_jax reads {FORMAT}.")
            splits = {split: tuple(map(Shard.from_json, shards)) for split, shards in fields["splits"].items()}
            return cls(tuple(fields["class_names"]), splits, fields["settings"], fields["plan"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / MANIFEST} cannot be read ({error}): prepare the folder again.") from error


class RecordFolder:
    """The images of one split of a folder that `fqgan prepare` wrote."""

    def __init__(self, folder: Path, split: str):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        manifest = Manifest.read(folder)
        shards = [shard for shard in manifest.splits.get(split, ()) if shard.count]
        if not shards:
            raise EmptySplit(f"The prepared folder {folder} has no image for the {split} split.")
        for shard in shards:
            check_size(folder / shard.file, shard.bytes)
        self.root = ""
        self.class_names = manifest.class_names
        self._split = f"{folder} ({split})"
        runs = np.array([run for shard in shards for run in shard.labels], np.int32)
        self._labels = np.repeat(runs[:, 0], runs[:, 1])
        self._records = ArrayRecordDataSource([str(folder / shard.file) for shard in shards])

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        try:
            return decode_record(self._records[index]).name
        except (RuntimeError, ValueError, struct.error):
            return f"record {index} of {self._split}"

    def label(self, index: int) -> int:
        return int(self._labels[index])

    def encoded(self, index: int) -> bytes:
        try:
            return decode_record(self._records[index]).image
        except (RuntimeError, ValueError, struct.error) as error:
            raise UnreadableImage(f"damaged record: {error}") from error

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        return read_image(self.encoded(index), shortest_side)
