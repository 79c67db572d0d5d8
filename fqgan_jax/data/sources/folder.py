"""A folder of images with one subfolder a class."""

import os
from pathlib import Path

from PIL import Image

from fqgan_jax.data.images import read_image
from fqgan_jax.data.sources.splits import EmptySplit, present_splits, share
from fqgan_jax.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


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
        splits = present_splits(_folders(root))
        root = root / splits[split] if splits else root
        by_class = {name: files for name in _folders(root) if (files := _image_files(root, name))}
        by_class = by_class or {root.name: _image_files(root, "")}
        self.root = str(root)
        self.class_names = tuple(by_class)
        everything = [(file, label) for label, files in enumerate(by_class.values()) for file in files]
        self._files = everything if splits else [everything[i] for i in share(everything, split, validation_fraction)]
        if not everything:
            endings = " ".join(sorted(EXTENSIONS))
            raise UserError(f"The folder {root} holds no images (looked for {endings}, also in its subfolders).")
        if not self._files:
            raise EmptySplit(
                f"The folder {root} has no image for the {split} split: add images or change the fraction."
            )

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return os.path.join(self.root, self._files[index][0])

    def label(self, index: int) -> int:
        return self._files[index][1]

    def encoded(self, index: int) -> bytes:
        return Path(self.name(index)).read_bytes()

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        return read_image(Path(self.name(index)), shortest_side)


def _folders(root: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"The folder {root} cannot be read: {error.strerror}.") from error


def _image_files(root: Path, folder: str) -> list[str]:
    """Paths below the root of the images in one of its folders, links that lead nowhere included."""

    def refuse(error: OSError):
        raise UserError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    files = []
    for path, folders, names in os.walk(root / folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = os.path.relpath(path, root)
        files += [
            os.path.normpath(os.path.join(relative, name))
            for name in names
            if os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")
        ]
    return sorted(files)
