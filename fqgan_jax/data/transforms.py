"""Crops: squares of `size` x `size` pixels from RGB images."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

ZOOM = 1.25  # images are resized to a shorter side of up to this times the size of a training crop
MAX_ASPECT_RATIO = 8  # only the requested square of more elongated images is resized


class CropBox(NamedTuple):
    """Position of a training crop.

    Attributes:
      side: shorter side of the resized image, in pixels.
      left: column of the crop's left edge in the resized image.
      top: row of the crop's top edge in the resized image.
      flip: 1 if the crop is mirrored, else 0.
    """

    side: int
    left: int
    top: int
    flip: int


def resize_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """Halves with a box filter while at least twice too large, then resizes bicubically (Dhariwal & Nichol 2021)."""
    image = _halved(image, side)
    return image.resize(_resized_size(image.size, side), Image.Resampling.BICUBIC)


def _halved(image: Image.Image, side: int) -> Image.Image:
    while min(image.size) >= 2 * side:
        image = image.resize(_half(image.size), Image.Resampling.BOX)
    return image


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2


def _resized_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Returns width and height after `resize_shorter_side`."""
    while min(size) >= 2 * side:
        size = _half(size)
    scale = side / min(size)
    return max(side, round(size[0] * scale)), max(side, round(size[1] * scale))


def _resized_square(image: Image.Image, resized: tuple[int, int], *, left: int, top: int, size: int) -> Image.Image:
    """Cuts a square from an image that is bicubically resized, without computing any pixel outside the square."""
    x, y = image.width / resized[0], image.height / resized[1]
    box = (left * x, top * y, min((left + size) * x, image.width), min((top + size) * y, image.height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def largest_side(size: int) -> int:
    """Returns the largest value of `random_side`."""
    return math.floor(size * ZOOM)


def random_side(size: int, rng: np.random.Generator) -> int:
    """Draws the shorter side to which an image is resized before a training crop: uniform in [size, 1.25 size]."""
    return int(rng.integers(size, largest_side(size) + 1))


def random_crop_box(
    image_size: tuple[int, int], size: int, rng: np.random.Generator, *, side: int | None = None
) -> CropBox:
    """Draws the position of a training crop.

    Args:
      image_size: width and height of the image.
      size: side of the crop.
      rng: random generator.
      side: shorter side of the resized image; None draws it with `random_side`.
    """
    side = random_side(size, rng) if side is None else side
    width, height = _resized_size(image_size, side)
    left, top = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
    return CropBox(side, left, top, int(rng.random() < 0.5))


def numbered_crop_boxes(image_size: tuple[int, int], size: int, *, count: int, seed: int, index: int) -> list[CropBox]:
    """Draws the positions of `count` training crops of image `index`, the r-th one from (seed, index, r) alone."""
    return [random_crop_box(image_size, size, np.random.default_rng([seed, index, r])) for r in range(count)]


def crop_at(image: Image.Image, size: int, box: CropBox) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Cuts the training crop at a position."""
    image = _halved(image, box.side)
    resized = _resized_size(image.size, box.side)
    crop = _resized_square(image, resized, left=box.left, top=box.top, size=size)
    return np.asarray(ImageOps.mirror(crop) if box.flip else crop)


def random_crop(
    image: Image.Image, size: int, rng: np.random.Generator, *, side: int | None = None
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Cuts a training crop: random zoom, random square, mirrored half of the time.

    Args:
      image: RGB image.
      size: side of the crop.
      rng: random generator.
      side: shorter side of the resized image; None draws it with `random_side`.
    """
    return crop_at(image, size, random_crop_box(image.size, size, rng, side=side))


def center_crop(image: Image.Image, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Cuts an evaluation crop: shorter side resized to `size`, then the centre square (Dhariwal & Nichol 2021)."""
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):  # resizing all of it would take gigabytes
        image = _halved(image, size)
        width, height = _resized_size(image.size, size)
        left, top = (width - size) // 2, (height - size) // 2
        return np.asarray(_resized_square(image, (width, height), left=left, top=top, size=size))
    image = resize_shorter_side(image, size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def ten_crops(image: Image.Image, size: int) -> UInt8[np.ndarray, "10 {size} {size} 3"]:
    """Cuts four corners and the centre from the centre square of side 1.1 `size`; then appends their mirror images."""
    side = int(size * 1.1)
    square = center_crop(image, side)
    far, middle = side - size, (side - size) // 2
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    crops = np.stack([square[top : top + size, left : left + size] for top, left in corners])
    return np.concatenate([crops, crops[:, :, ::-1]])
