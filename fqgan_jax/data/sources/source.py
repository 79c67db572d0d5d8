"""Where images come from: random access by index.

`open_source(name, split)` takes what users write after `--data`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from fqgan_jax.data.sources.folder import ImageFolder
from fqgan_jax.data.sources.photos import BundledPhotos
from fqgan_jax.data.sources.records import MANIFEST, RecordFolder
from fqgan_jax.data.sources.tars import TarShards, tar_files
from fqgan_jax.data.sources.tfds import PREFIX, TfdsSource
from fqgan_jax.errors import UserError


class Source(Protocol):
    """Images by index, the same ones in the same order wherever it is opened; it can be sent to other processes.

    `read` raises `UnreadableImage`; `shortest_side` allows a cheaper decoding at reduced scale. `encoded` is the image
    file's content; it raises `UnreadableImage` for a damaged record and `OSError` for a file that cannot be opened.
    Names begin with `root`.
    """

    class_names: Sequence[str]
    root: str

    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...
    def label(self, index: int) -> int: ...
    def encoded(self, index: int) -> bytes: ...
    def read(self, index: int, shortest_side: int | None = None) -> Image.Image: ...


def open_source(name: str, split: str, *, validation_fraction: float = 0.05, data_dir: str | None = None) -> Source:
    """Opens one split, "train" or "validation", of a source.

    Args:
      name: an image folder, a folder that `fqgan prepare` wrote, "tfds:NAME[:VERSION]", a tar file or a folder of them
        in WebDataset layout, or "photos" (bundled, no download).
      validation_fraction: kept aside where the source has no validation split of its own.
      data_dir: where tensorflow-datasets' prepared datasets lie, if not in its own default.

    Raises:
      UserError: the source is missing, damaged or holds no image (`EmptySplit`: none for this split).
    """
    try:
        return _open(name, split, validation_fraction, data_dir)
    except OSError as error:
        raise UserError(f"{name} cannot be opened: {error.strerror or error} ({error.filename}).") from error


def relative_name(source: Source, index: int) -> str:
    """The name of an image without the place where the source happens to lie."""
    return source.name(index).removeprefix(source.root).lstrip("/")


def fingerprint(source: Source, names: int = 1024) -> str:
    """A hash of count, classes, and names and labels of images evenly spread over the source, however it lies."""
    digest = hashlib.sha256(json.dumps([len(source), *source.class_names]).encode())
    step = max(1, len(source) // names)
    for index in range(0, len(source), step):
        digest.update(f"{relative_name(source, index)}\0{source.label(index)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _open(name: str, split: str, validation_fraction: float, data_dir: str | None) -> Source:
    if name == "photos":
        return BundledPhotos(split)
    if name.startswith(PREFIX):
        return TfdsSource(name, split, validation_fraction, data_dir)
    path = Path(name)
    if (path / MANIFEST).is_file():
        return RecordFolder(path, split)
    if tar_files(path):
        return TarShards(path, split, validation_fraction)
    if path.is_file():
        raise UserError(f"{path} is a file: give a folder of images, of tar files or of prepared records.")
    return ImageFolder(path, split, validation_fraction)
