"""The images that an evaluation counts: any source of the project, a folder, or an `.npz` batch."""

import dataclasses
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fqgan_jax.data.images import UnreadableImage
from fqgan_jax.data.loader import evaluation_batches
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source, open_source
from fqgan_jax.data.sources.splits import EmptySplit
from fqgan_jax.data.stream import Batch
from fqgan_jax.errors import UserError


class ArrayImages:
    """Images of an array as a source, one class."""

    class_names = ("image",)

    def __init__(self, images: UInt8[np.ndarray, "n H W 3"], where: str):
        self.images, self.root = images, where

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{self.root}[{index}]"

    def label(self, index: int) -> int:
        return 0

    def encoded(self, index: int) -> bytes:
        content = io.BytesIO()
        self.read(index).save(content, "PNG")
        return content.getvalue()

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        return Image.fromarray(self.images[index])


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Square images that are evaluated, each once.

    Attributes:
      name, split: as the user gave them.
      source: where they are read.
      size: side of the centre crops.
      limit: number of images, from the first on; None: all.
      skipped: those that could not be read.
      num_threads: threads that read images.
    """

    name: str
    split: str
    source: Source
    size: int
    limit: int | None
    skipped: Skipped
    num_threads: int = 8

    def __len__(self) -> int:
        return min(len(self.source), self.limit or len(self.source))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, "mask" 0 where the last batch is filled up."""
        return evaluation_batches(
            self.source,
            image_size=self.size,
            batch_size=batch_size,
            skipped=self.skipped,
            limit=self.limit,
            num_threads=self.num_threads,
        )

    def protocol(self, counted: int) -> dict:
        """How the images came about."""
        crop = "none" if isinstance(self.source, ArrayImages) else "shorter side to size (box halvings, then bicubic)"
        return {
            "name": self.name,
            "split": self.split,
            "count": counted,
            "skipped": sorted(self.skipped.reasons),
            "crop": crop if crop == "none" else f"{crop}, centre square",
            "size": self.size,
        }


def open_images(
    name: str,
    *,
    split: str | None = None,
    size: int | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    num_threads: int = 8,
) -> ImageSet:
    """Opens an `.npz` (`arr_0`, uint8, as it is), a folder of images or any other source, to be cropped to `size`.

    Without a split, the validation split where the source has its own (photos, a folder with train and val folders),
    else all images. Without a size, that of the first image, which then must be a square. `data_dir` is where prepared
    tensorflow-datasets lie, if not in their own default.

    Raises:
      UserError: nothing there, no such split, or no size to crop to.
    """
    if name.endswith(".npz"):
        source, split = _open_array(Path(name)), "all"
    else:
        source, split = _open_split(name, split, data_dir)
    if isinstance(source, ArrayImages):
        size = source.images.shape[1]
    return ImageSet(name, split, source, size or _common_size(source, name), limit, Skipped(), num_threads)


def _open_split(name: str, split: str | None, data_dir: str | None) -> tuple[Source, str]:
    """The source of a split, and the split that it is."""
    if split in ("train", "validation"):
        return open_source(name, split, data_dir=data_dir), split
    try:
        # Nothing is kept aside, so only a source with a split of its own has validation images.
        own = open_source(name, "validation", validation_fraction=0, data_dir=data_dir)
    except EmptySplit:
        return open_source(name, "train", validation_fraction=0, data_dir=data_dir), "all"
    if split == "all":
        raise UserError(f"{name} has a train and a validation split: choose one with --split.")
    return own, "validation"


def _common_size(source: Source, name: str) -> int:
    for index in range(len(source)):
        try:
            width, height = source.read(index).size
        except UnreadableImage:
            continue
        if width != height:
            raise UserError(f"The images of {name} are no squares ({width}x{height}): choose a crop with --size.")
        return width
    raise UserError(f"None of the {len(source)} images of {name} can be read.")


def _open_array(path: Path) -> ArrayImages:
    images = read_arrays(path).get("arr_0")
    if images is None or images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        found = "no arr_0" if images is None else f"arr_0 of shape {images.shape} and type {images.dtype}"
        raise UserError(f"{path} holds {found}: images are arr_0 with [n, H, W, 3] numbers of type uint8.")
    if images.shape[1] != images.shape[2] or not len(images):
        raise UserError(f"The images of {path} have shape {images.shape}: they must be squares, at least one.")
    return ArrayImages(images, str(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Content of an `.npz`.

    Raises:
      UserError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, AttributeError) as error:
        raise UserError(f"{path} is damaged or no .npz file ({error}): get it again.") from error
