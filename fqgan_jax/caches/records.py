"""Reading caches of the outputs of frozen networks: their manifest and their records."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from fqgan_jax.config.rules import Rule, check_complete
from fqgan_jax.data.shards import check_shards, open_shards
from fqgan_jax.data.transforms import CropBox
from fqgan_jax.errors import UserError
from fqgan_jax.files import read_json

LABEL_BYTES = 4
CROP_BOX_BYTES = 16


class Crops(NamedTuple):
    """Crops of one image.

    Attributes:
      images: the crops.
      boxes: their positions, as `CropBox`; without rows if they are not random crops.
      rows: values computed from the crops so far, by name.
    """

    images: UInt8[np.ndarray, "crops H W 3"]
    boxes: Int[np.ndarray, "crops 4"]
    rows: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Example:
    """An image of the source; `crops` is None if it could not be read, for a `reason`."""

    index: int
    label: int
    crops: Crops | None
    reason: str = ""


def read_manifest(path: Path, rules: Mapping[str, Rule], *, title: str, command: str) -> dict:
    """Reads the manifest of a cache.

    Args:
      path: the manifest.
      rules: what its fields may be.
      title: what the cache is, for error messages ("code cache").
      command: the command that writes it ("fqgan tokenize").

    Raises:
      UserError: there is no manifest, or a damaged one.
    """
    if not path.is_file():
        raise UserError(
            f"{path.parent} holds no {title}: write one with {command} --out {path.parent}, or let it finish."
        )
    again = f"write it again with {command}"
    manifest = read_json(path, remedy=again)
    check_complete(manifest, rules, where=f"{path}: ", remedy=again)
    check_shards(manifest.get("shards"), f"{path}: ")
    return manifest


def open_records(folder: Path, manifest: dict) -> Sequence[bytes]:
    """Opens a cache's records for random access.

    Raises:
      UserError: a shard is missing, or does not have the size and the number of records in the manifest.
    """
    shards = [shard for shard in manifest["shards"] if shard["count"]]
    return open_shards(folder, {shard["file"]: (shard["count"], shard["bytes"]) for shard in shards})


def records_state(manifest: dict) -> str:
    """Returns a hash of a cache's content, by the checksums in its manifest."""
    shards = [[shard["file"], shard["count"], shard.get("sha256", "")] for shard in manifest["shards"]]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()[:16]


def encode_label(label: int) -> bytes:
    """Returns the first bytes of every record."""
    return np.array(label, "<i4").tobytes()


def decode_label(record: bytes) -> int:
    """Inverts `encode_label`."""
    return int(np.frombuffer(record, "<i4", 1)[0])


def encode_crop_boxes(boxes: Int[np.ndarray, "crops 4"]) -> bytes:
    """Returns the bytes that follow the label in records of random crops."""
    return boxes.astype("<i4").tobytes()


def decode_crop_boxes(record: bytes, num_crops: int) -> list[CropBox]:
    """Inverts `encode_crop_boxes` for a whole record."""
    boxes = np.frombuffer(record, "<i4", 4 * num_crops, LABEL_BYTES).reshape(num_crops, 4)
    return [CropBox(*map(int, box)) for box in boxes]
