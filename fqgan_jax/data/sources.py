"""Where images come from: random-access sources of `Record`s.

`open_source(name, split)` takes what users write after `--data`: a folder, or "photos".
"""

import dataclasses
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from PIL import Image

from fqgan_jax.data.images import UnreadableImage, read_image
from fqgan_jax.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation")}


class Source(Protocol):
    """Images by index. `read` raises `UnreadableImage`; `shortest_side` allows a cheaper decoding at reduced scale."""

    class_names: Sequence[str]

    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...
    def label(self, index: int) -> int: ...
    def read(self, index: int, shortest_side: int | None = None) -> Image.Image: ...


def open_source(name: str, split: str, validation_fraction: float = 0.05) -> Source:
    """Opens "photos" (bundled, no download) or an image folder, for the split "train" or "validation".

    Raises:
      UserError: the folder is missing or holds no image.
    """
    return BundledPhotos(split) if name == "photos" else ImageFolder(Path(name), split, validation_fraction)


class ImageFolder:
    """A folder with one subfolder a class, in alphabetical order (images without subfolders: one class).

    Where it holds `train` and `val` folders, these are the splits; else a fixed share of each class, chosen by a hash
    of the file names, is kept aside for validation.
    """

    def __init__(self, root: Path, split: str, validation_fraction: float = 0.05):
        if not root.is_dir():
            raise UserError(
                f"There is no folder {root}: give a folder of images with one subfolder a class, or photos."
            )
        split_root = next((root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()), None)
        both = split_root is not None and any((root / name).is_dir() for name in SPLIT_FOLDERS["train"])
        if both:
            root = split_root
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        by_class = {folder.name: files for folder in folders if (files := _image_files(folder))}
        by_class = by_class or {root.name: _image_files(root)}
        self.root = root
        self.class_names = tuple(by_class)
        self._files = []
        for label, files in enumerate(by_class.values()):
            chosen = files if both else _share(files, split, validation_fraction)
            self._files += [(path, label) for path in chosen]
        if not any(by_class.values()):
            endings = " ".join(sorted(EXTENSIONS))
            raise UserError(f"The folder {root} holds no images (looked for {endings}, also in its subfolders).")
        if not self._files:
            raise UserError(f"The folder {root} has no image for the {split} split: add images or change the fraction.")

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return str(self._files[index][0])

    def label(self, index: int) -> int:
        return self._files[index][1]

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        return read_image(self._files[index][0], shortest_side)


def _image_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))


def _share(files: list[Path], split: str, validation_fraction: float) -> list[Path]:
    count = min(len(files) - 1, max(1, round(validation_fraction * len(files)))) if validation_fraction > 0 else 0
    by_hash = sorted(files, key=lambda path: (zlib.crc32(path.name.encode()), path.name))
    held_out = set(by_hash[: max(count, 0)])
    return [path for path in files if (path in held_out) == (split == "validation")]


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph inside the scikit-image wheel."""

    name: str
    file: str


PHOTOS = (
    Photo("astronaut", "astronaut.png"),
    Photo("camera man", "camera.png"),
    Photo("cat", "chelsea.png"),
    Photo("coffee", "coffee.png"),
    Photo("coins", "coins.png"),
    Photo("galaxies", "hubble_deep_field.jpg"),
    Photo("motorcycle", "motorcycle_left.png"),
    Photo("rocket", "rocket.jpg"),
)


class BundledPhotos:
    """Square crops of the photographs that come with scikit-image; the class is the photograph.

    A strip at the right edge, a fifth of the width, is kept aside: validation crops lie inside it, training crops
    left of it.
    """

    STRIP = 0.2
    TRAIN_SIDES = (0.6, 0.8, 1.0)  # of the shorter side of the training part
    STEPS = 4  # positions of the crops along each axis

    def __init__(self, split: str):
        self.class_names = tuple(photo.name for photo in PHOTOS)
        folder = Path(find_spec("skimage").origin).parent / "data"
        self._photos = [read_image(folder / photo.file) for photo in PHOTOS]
        self._crops = [
            (label, box)
            for label, photo in enumerate(self._photos)
            for box in (self._validation_boxes if split == "validation" else self._train_boxes)(photo)
        ]

    def _train_boxes(self, photo: Image.Image) -> list[tuple[int, int, int, int]]:
        width = round(photo.width * (1 - self.STRIP))
        sides = [round(share * min(width, photo.height)) for share in self.TRAIN_SIDES]
        return sorted({box for side in sides for box in _grid_of_squares(0, width, photo.height, side, self.STEPS)})

    def _validation_boxes(self, photo: Image.Image) -> list[tuple[int, int, int, int]]:
        left = round(photo.width * (1 - self.STRIP))
        side = min(photo.width - left, photo.height)
        return _grid_of_squares(left, photo.width, photo.height, side, photo.height // side)

    def __len__(self) -> int:
        return len(self._crops)

    def name(self, index: int) -> str:
        label, box = self._crops[index]
        return f"{self.class_names[label]} {box}"

    def label(self, index: int) -> int:
        return self._crops[index][0]

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        label, box = self._crops[index]
        return self._photos[label].crop(box)


def _grid_of_squares(left: int, right: int, height: int, side: int, steps: int) -> list[tuple[int, int, int, int]]:
    """Squares of a side, evenly spread over the columns left..right and rows 0..height, each once."""
    spread = lambda room: sorted({round(room * i / max(steps - 1, 1)) for i in range(steps)})
    lefts, tops = spread(right - left - side), spread(height - side)
    return [(left + x, y, left + x + side, y + side) for y in tops for x in lefts]


class Skipped:
    """Images that could not be read, by name: every one is reported once, at the end."""

    def __init__(self):
        self.reasons: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        self.reasons[name] = reason

    def report(self) -> str:
        """Empty, or a sentence with the count and at most ten names."""
        if not self.reasons:
            return ""
        names = [f"{name} ({reason})" for name, reason in sorted(self.reasons.items())[:10]]
        more = f" and {len(self.reasons) - 10} more" if len(self.reasons) > 10 else ""
        return f"Skipped {len(self.reasons)} unreadable image(s): {', '.join(names)}{more}"


def read_or_next(
    source: Source, index: int, skipped: Skipped, shortest_side: int | None = None
) -> tuple[int, Image.Image]:
    """Reads an image or, where it is damaged, the next readable one, so that a batch depends on the files alone.

    Raises:
      UserError: not one image can be read.
    """
    for offset in range(len(source)):
        candidate = (index + offset) % len(source)
        try:
            return candidate, source.read(candidate, shortest_side)
        except UnreadableImage as error:
            skipped.add(source.name(candidate), str(error))
    raise UserError(f"None of the {len(source)} images can be read. {skipped.report()}")
