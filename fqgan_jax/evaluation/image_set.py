"""The images that an evaluation measures: any image source, or an `.npz` batch."""

import dataclasses
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.loader import evaluation_batches
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source, open_source
from fqgan_jax.data.sources.splits import EmptySplitError
from fqgan_jax.data.stream import Batch
from fqgan_jax.data.transforms import Size
from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path, local_copy


class ArrayImages(Source):
    """An array of images as a source (see `fqgan_jax.data.sources.Source`), of one class."""

    class_names = ("image",)

    def __init__(self, images: UInt8[np.ndarray, "n H W 3"], path: str):
        self.images = images
        self.root = path

    @staticmethod
    def recognizes(name: str) -> bool:
        """No name of a source: `open_images` reads the file."""
        del name
        return False

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """Returns the file and the number of an image in it."""
        return f"{self.root}[{index}]"

    def label(self, index: int) -> int:
        """Returns the only class."""
        del index
        return 0

    def encoded(self, index: int) -> bytes:
        """Returns an image as a PNG file."""
        content = io.BytesIO()
        self.read(index).save(content, "PNG")
        return content.getvalue()

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        """Returns an image at its full size."""
        del shortest_side
        return Image.fromarray(self.images[index])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images that are evaluated, each once.

    Attributes:
      name: as the user gave it.
      split: the one that the user chose, or that was found.
      source: source of the images.
      size: of the centre crops, a side or (height, width).
      limit: number of images, from the first on; None: all.
      skipped: images that could not be read.
      num_threads: threads that read images.
    """

    name: str
    split: str
    source: Source
    size: Size
    limit: int | None
    skipped: Skipped
    num_threads: int = 8

    def __len__(self) -> int:
        return min(len(self.source), self.limit or len(self.source))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields every image once; "mask" is 0 for filler in the last batch."""
        return evaluation_batches(
            self.source,
            image_size=self.size,
            batch_size=batch_size,
            skipped=self.skipped,
            limit=self.limit,
            num_threads=self.num_threads,
        )

    def protocol(self, counted: int) -> dict:
        """Returns the origin of the images and how they were cropped."""
        part = "square" if isinstance(self.size, int) else "rectangle"
        side = "shorter side to size" if isinstance(self.size, int) else "resized to cover size"
        crop = f"{side} (box halvings, then bicubic), centre {part}"
        return {
            "name": self.name,
            "split": self.split,
            "count": counted,
            "skipped": sorted(self.skipped.reasons),
            "crop": "none" if isinstance(self.source, ArrayImages) else crop,
            "size": self.size,
        }


def open_images(
    name: str,
    *,
    split: str | None = None,
    size: Size | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    num_threads: int = 8,
) -> ImageSet:
    """Opens an `.npz` of images, a folder of images or any other source.

    Args:
      name: an `.npz` (`arr_0`, uint8, images that are not cropped), or the name of a source.
      split: "train", "validation" or "all"; by default the validation split if the source has its own (photos, a folder
        with train and val folders), else all images.
      size: of the centre crops, a side or (height, width); by default the side of the first image, which then must be
        a square.
      limit: number of images, from the first on; by default all.
      data_dir: folder of prepared tensorflow-datasets; None uses their own default.
      num_threads: threads that read images.

    Raises:
      UserError: there are no images, no such split, or no size to crop to.
    """
    source: Source
    if name.endswith(".npz"):
        array, split = _open_array(as_path(name)), "all"
        height, width = array.images.shape[1:3]
        source, size = array, height if height == width else (height, width)
    else:
        source, split = _open_split(name, split, data_dir)
    return ImageSet(
        name=name,
        split=split,
        source=source,
        size=size or _common_size(source, name),
        limit=limit,
        skipped=Skipped(),
        num_threads=num_threads,
    )


def _open_split(name: str, split: str | None, data_dir: str | None) -> tuple[Source, str]:
    """Returns the source of a split, and the name of the split."""
    if split in ("train", "validation"):
        return open_source(name, split, data_dir=data_dir), split
    try:
        # With a validation fraction of 0 only a source with a split of its own has validation images.
        own = open_source(name, "validation", validation_fraction=0, data_dir=data_dir)
    except EmptySplitError:
        return open_source(name, "train", validation_fraction=0, data_dir=data_dir), "all"
    if split == "all":
        raise UserError(f"{name} has a train and a validation split: choose one with --split.")
    return own, "validation"


def _common_size(source: Source, name: str) -> int:
    """Returns the side of the first readable image, which must be a square."""
    for index in range(len(source)):
        try:
            width, height = source.read(index).size
        except UnreadableImageError:
            continue
        if width != height:
            raise UserError(f"The images of {name} are not square ({width}x{height}): choose a crop with --size.")
        return width
    raise UserError(f"None of the {len(source)} images of {name} can be read.")


def _open_array(path: Path) -> ArrayImages:
    images = read_arrays(path).get("arr_0")
    if images is None or images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        found = "no arr_0" if images is None else f"arr_0 of shape {images.shape} and type {images.dtype}"
        raise UserError(f"{path} holds {found}: images are arr_0 with [n, H, W, 3] numbers of type uint8.")
    if not images.size:
        raise UserError(f"The images of {path} have shape {images.shape}: there must be at least one.")
    return ArrayImages(images, str(path))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the content of an `.npz`.

    Raises:
      UserError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        with np.load(local_copy(path)) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, TypeError, EOFError, AttributeError) as error:
        raise UserError(f"{path} is damaged or not an .npz file ({error}): get it again.") from error
    except (RuntimeError, NotImplementedError, MemoryError) as error:  # encrypted, or compressed in another way
        raise UserError(f"{path} cannot be read ({error}): store its arrays with numpy.savez.") from error
