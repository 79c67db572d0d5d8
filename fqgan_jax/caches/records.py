"""Reading caches of the outputs of frozen networks: their manifest and their records."""

import json
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Int, UInt8

from fqgan_jax.data.shards import check_size
from fqgan_jax.data.transforms import CropBox
from fqgan_jax.errors import UserError

LABEL_BYTES = 4
CROP_BOX_BYTES = 16


class Crops(NamedTuple):
    """Crops of one image.

    Attributes:
      images: the crops.
      boxes: their positions, as `CropBox`; without rows if they are not random crops.
      rows: values computed from the crops so far, by name.
    """

    images: UInt8[np.ndarray, "crops size size 3"]
    boxes: Int[np.ndarray, "crops 4"]
    rows: dict[str, np.ndarray]


class Example(NamedTuple):
    """An image of the source; `crops` is None if it could not be read, for a `reason`."""

    index: int
    label: int
    crops: Crops | None
    reason: str = ""


def read_manifest(path: Path, *, title: str, command: str) -> dict:
    """Reads the manifest of a cache.

    Args:
      path: the manifest.
      title: what the cache is, for error messages ("code cache").
      command: the command that writes it ("fqgan tokenize").

    Raises:
      UserError: there is no manifest, or a damaged one.
    """
    if not path.is_file():
        raise UserError(
            f"{path.parent} holds no {title}: write one with {command} --out {path.parent}, or let it finish."
        )
    try:
        manifest = json.loads(path.read_text())
        if not isinstance(manifest["shards"], list):
            raise TypeError("shards is no list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): write it again with {command}.") from error
    return manifest


def open_records(folder: Path, manifest: dict) -> grain.sources.ArrayRecordDataSource:
    """Opens a cache's records for random access.

    Raises:
      UserError: a shard is missing or does not have the size in the manifest.
    """
    shards = [shard for shard in manifest["shards"] if shard["count"]]
    for shard in shards:
        check_size(folder / shard["file"], shard["bytes"])
    return grain.sources.ArrayRecordDataSource([str(folder / shard["file"]) for shard in shards])


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
