"""Crops, which take RGB images and return squares of `size` x `size`; and pixels as the networks see them."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

ZOOM = 1.25  # training crops come from images whose shorter side is up to this times the crop
LONGEST = 8  # times the shorter side: of longer images only the square that is asked for is resized


def resize_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """Box-halves while at least twice too large, then bicubic: ADM's resize (Dhariwal & Nichol 2021)."""
    image = _halved(image, side)
    return image.resize(_resized_size(image.size, side), Image.Resampling.BICUBIC)


def _halved(image: Image.Image, side: int) -> Image.Image:
    while min(image.size) >= 2 * side:
        image = image.resize(_half(image.size), Image.Resampling.BOX)
    return image


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2


def _resized_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height after `resize_shorter_side`."""
    while min(size) >= 2 * side:
        size = _half(size)
    scale = side / min(size)
    return max(side, round(size[0] * scale)), max(side, round(size[1] * scale))


def _resized_square(image: Image.Image, resized: tuple[int, int], left: int, top: int, size: int) -> Image.Image:
    """A square of the image as it would be after a bicubic resize, of which no other pixel is computed."""
    x, y = image.width / resized[0], image.height / resized[1]
    box = (left * x, top * y, min((left + size) * x, image.width), min((top + size) * y, image.height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


class Place(NamedTuple):
    """Where a training crop lies: in the image of shorter side `side`, and whether it is mirrored (0 or 1)."""

    side: int
    left: int
    top: int
    flip: int


def largest_side(size: int) -> int:
    """The largest `random_side`."""
    return math.floor(size * ZOOM)


def random_side(size: int, rng: np.random.Generator) -> int:
    """The shorter side that an image gets before a training crop: uniform in [size, 1.25 size]."""
    return int(rng.integers(size, largest_side(size) + 1))


def random_place(image_size: tuple[int, int], size: int, rng: np.random.Generator, side: int | None = None) -> Place:
    """A training crop's place in an image of so many pixels; `side` of `random_side`, drawn here if None."""
    side = random_side(size, rng) if side is None else side
    width, height = _resized_size(image_size, side)
    left, top = int(rng.integers(width - size + 1)), int(rng.integers(height - size + 1))
    return Place(side, left, top, int(rng.random() < 0.5))


def crop_at(image: Image.Image, size: int, place: Place) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The crop at a place."""
    image = _halved(image, place.side)
    crop = _resized_square(image, _resized_size(image.size, place.side), place.left, place.top, size)
    return np.asarray(ImageOps.mirror(crop) if place.flip else crop)


def random_crop(
    image: Image.Image, size: int, rng: np.random.Generator, side: int | None = None
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Training crop: shorter side `side` (of `random_side`, drawn here if None), random square, random mirror image."""
    return crop_at(image, size, random_place(image.size, size, rng, side))


def numbered_places(image_size: tuple[int, int], size: int, count: int, seed: int, index: int) -> list[Place]:
    """Training crops' places for image `index`: the r-th is drawn by a generator of (seed, index, r)."""
    return [random_place(image_size, size, np.random.default_rng([seed, index, r])) for r in range(count)]


def center_crop(image: Image.Image, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Evaluation crop: shorter side to `size`, centre square (ADM's protocol)."""
    if max(image.size) > LONGEST * min(image.size):  # resizing all of it would take gigabytes
        image = _halved(image, size)
        width, height = _resized_size(image.size, size)
        return np.asarray(_resized_square(image, (width, height), (width - size) // 2, (height - size) // 2, size))
    image = resize_shorter_side(image, size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def ten_crops(image: Image.Image, size: int) -> UInt8[np.ndarray, "10 {size} {size} 3"]:
    """Four corners and centre of the centre square of an image of shorter side 1.1 size, and their mirror images."""
    side = int(size * 1.1)
    square = center_crop(image, side)
    far, middle = side - size, (side - size) // 2
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    crops = np.stack([square[top : top + size, left : left + size] for top, left in corners])
    return np.concatenate([crops, crops[:, :, ::-1]])
