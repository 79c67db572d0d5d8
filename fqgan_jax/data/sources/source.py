"""Image sources: random access to images by index, and the table of their kinds."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from fqgan_jax.config.registry import Registry
from fqgan_jax.data.images import UnreadableImageError, read_image
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import sha256_of


class Source(Protocol):
    """Images and labels by index: the same ones in the same order whenever a source is opened.

    A kind of source is a class with a row in `sources`. A user's own kind is defined in a file that is named
    with `--plugin FILE` or imported by the config:

        @sources("squares")
        class Squares(Source):
            "N images of one grey value each."

            usage = "squares:N"
            class_names = ("square",)

            @staticmethod
            def recognizes(name):
                return name.startswith("squares:")

            def __init__(self, name, split, **_):
                self.split, self.count = split, int(name.partition(":")[2])

            def __len__(self):
                return self.count

            def name(self, index):
                return f"{self.split}/{index}"

            def label(self, index):
                return 0

            def encoded(self, index):
                return png_bytes(Image.new("RGB", (64, 64), (index % 256,) * 3))

    Subclasses inherit `root`, `files` and `read`. Worker processes receive a source by pickling, so a source that holds
    open files or other state that cannot be pickled defines `__reduce__`.

    Attributes:
      usage: the form of such a source's name, as part of a sentence.
      class_names: names of the labels.
      root: prefix of all image names; it is not part of fingerprints, so a source may move.
    """

    usage: str = ""
    class_names: Sequence[str]
    root: str = ""

    def __init__(self, name: str, split: str, *, validation_fraction: float, data_dir: str | None) -> None:
        """Opens one split; the arguments are those of `open_source`.

        Raises:
          UserError: the source is missing or damaged, or holds no image.
          EmptySplitError: it holds images, but none for this split.
        """

    @staticmethod
    def recognizes(name: str) -> bool:
        """Whether a name that a user wrote belongs to this kind of source."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def name(self, index: int) -> str:
        """Name of an image: unique, and the same whenever the source is opened."""
        ...

    def label(self, index: int) -> int:
        """Position of an image's class in `class_names`."""
        ...

    def encoded(self, index: int) -> bytes:
        """Returns the content of an image file.

        Raises:
          UnreadableImageError: the record that holds the file is damaged.
          OSError: the file cannot be opened.
        """
        ...

    def files(self) -> Iterable[Path]:
        """Files that hold the images, which tell a resumed run whether they changed; none if that is not known."""
        return ()

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        """Decodes an image to RGB; see `read_image` for `shortest_side`.

        Raises:
          UnreadableImageError: the file cannot be opened, or does not hold a whole image.
        """
        try:
            return read_image(self.encoded(index), shortest_side)
        except OSError as error:
            raise UnreadableImageError(str(error)) from error


sources: Registry[type[Source]] = Registry("image source")
FALLBACK = "folder"  # the row for every name that no other row recognizes


def open_source(name: str, split: str, *, validation_fraction: float = 0.05, data_dir: str | None = None) -> Source:
    """Opens one split of an image source.

    Args:
      name: what the user wrote, as `--data` for example. The first row of `sources` that recognizes it opens it, or
        the plain folder if no row does.
      split: "train" or "validation".
      validation_fraction: part of each class that is held out if the source has no validation split of its own.
      data_dir: folder of prepared tensorflow-datasets; None uses their own default.

    Raises:
      UserError: the source is missing, damaged or holds no image.
      EmptySplitError: it holds no image for this split.
    """
    check(name.strip(), "The image source has no name: give a folder of images, or photos.")
    try:
        recognized = (kind for row, kind in sources.items() if row != FALLBACK and kind.recognizes(name))
        kind = next(recognized, sources[FALLBACK])
        return kind(name, split, validation_fraction=validation_fraction, data_dir=data_dir)
    except OSError as error:
        raise UserError(f"{name} cannot be opened: {error.strerror or error} ({error.filename}).") from error


def relative_name(source: Source, index: int) -> str:
    """Returns the name of an image without the folder that holds the source."""
    return source.name(index).removeprefix(source.root).lstrip("/")


def described(source: Source, index: int) -> bytes:
    """Returns name and label of an image, for hashes."""
    return f"{relative_name(source, index)}\0{source.label(index)}\n".encode(errors="surrogateescape")


def source_state(source: Source, verify: str) -> str:
    """Returns a hash of all names and labels, and of what `verify` adds.

    Args:
      source: the images.
      verify: "names" adds nothing, "files" the size and the time of each file, "content" what the files hold.
    """
    digest = hashlib.sha256(json.dumps([len(source), *source.class_names]).encode())
    for index in range(len(source)):
        digest.update(described(source, index))
    for file in () if verify == "names" else source.files():
        digest.update(_file_state(file, verify))
    return digest.hexdigest()[:16]


def _file_state(file: Path, verify: str) -> bytes:
    try:
        if verify == "content":
            return bytes.fromhex(sha256_of(file))
        found = file.stat()
        return f"{found.st_size} {found.st_mtime_ns}\n".encode()
    except OSError as error:  # a broken link: it is skipped in training too
        return f"{error.errno}\n".encode()


def fingerprint(source: Source, *, num_names: int = 1024) -> str:
    """Returns a hash of the image count, the classes, and evenly spread names and labels.

    It does not depend on the folder or on the file format in which the images are stored.
    """
    digest = hashlib.sha256(json.dumps([len(source), *source.class_names]).encode())
    step = max(1, len(source) // num_names)
    for index in range(0, len(source), step):
        digest.update(described(source, index))
    return digest.hexdigest()[:16]
