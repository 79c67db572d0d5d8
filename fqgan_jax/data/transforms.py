"""Crops of RGB images: squares, or rectangles of (height, width)."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

Size = int | tuple[int, int]  # side of a square, or (height, width)

ZOOM = 1.25  # images are resized until they cover up to this times the size of a training crop
MAX_ASPECT_RATIO = 8  # only the requested part of more elongated images is resized


class CropBox(NamedTuple):
    """Position of a training crop.

    Attributes:
      side: of the square that the resized image just covers, in pixels; for a rectangle, its shorter side.
      left: column of the crop's left edge in the resized image.
      top: row of the crop's top edge in the resized image.
      flip: 1 if the crop is mirrored, else 0.
    """

    side: int
    left: int
    top: int
    flip: int


def height_and_width(size: Size) -> tuple[int, int]:
    """Returns both sides of a crop."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def written_size(size: Size) -> str:
    """Returns a size as messages name it, "256x256"."""
    return "x".join(map(str, height_and_width(size)))


def resize_to_cover(image: Image.Image, size: Size) -> Image.Image:
    """Resizes an image until it just covers a square or rectangle (Dhariwal & Nichol 2021).

    It is halved with a box filter while at least twice too large, then resized bicubically.
    """
    image = _halved(image, size)
    return image.resize(_resized_size(image.size, size), Image.Resampling.BICUBIC)


def _halved(image: Image.Image, cover: Size) -> Image.Image:
    while _is_twice_as_large(image.size, cover):
        image = image.resize(_half(image.size), Image.Resampling.BOX)
    return image


def _is_twice_as_large(size: tuple[int, int], cover: Size) -> bool:
    height, width = height_and_width(cover)
    return size[0] >= 2 * width and size[1] >= 2 * height


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2


def _resized_size(size: tuple[int, int], cover: Size) -> tuple[int, int]:
    """Returns width and height after `resize_to_cover`."""
    height, width = height_and_width(cover)
    while _is_twice_as_large(size, cover):
        size = _half(size)
    scale = max(width / size[0], height / size[1])
    return max(width, round(size[0] * scale)), max(height, round(size[1] * scale))


def _resized_part(image: Image.Image, resized: tuple[int, int], *, left: int, top: int, size: Size) -> Image.Image:
    """Cuts a part from an image that is bicubically resized, without computing any pixel outside of it."""
    height, width = height_and_width(size)
    x, y = image.width / resized[0], image.height / resized[1]
    box = (left * x, top * y, min((left + width) * x, image.width), min((top + height) * y, image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def zoomed(size: Size, side: int) -> Size:
    """Returns the square or rectangle of this shorter side, in the proportions of `size`."""
    if isinstance(size, int):
        return side
    shorter = min(size)
    height, width = (max(length, round(length * side / shorter)) for length in size)
    return height, width


def needed_side(size: Size, side: int) -> int:
    """Returns the shorter side at which an image has every pixel of a crop of any proportions: see `read_image`."""
    return max(height_and_width(zoomed(size, side)))


def largest_side(size: Size) -> int:
    """Returns the largest value of `random_side`."""
    return math.floor(min(height_and_width(size)) * ZOOM)


def random_side(size: Size, rng: np.random.Generator) -> int:
    """Draws the shorter side of what an image is resized to cover before a training crop, up to 1.25 times the crop."""
    return int(rng.integers(min(height_and_width(size)), largest_side(size) + 1))


def random_crop_box(
    image_size: tuple[int, int], size: Size, rng: np.random.Generator, *, side: int | None = None
) -> CropBox:
    """Draws the position of a training crop.

    Args:
      image_size: width and height of the image.
      size: of the crop.
      rng: random generator.
      side: see `CropBox`; None draws it with `random_side`.
    """
    side = random_side(size, rng) if side is None else side
    width, height = _resized_size(image_size, zoomed(size, side))
    crop_height, crop_width = height_and_width(size)
    left, top = int(rng.integers(width - crop_width + 1)), int(rng.integers(height - crop_height + 1))
    return CropBox(side, left, top, int(rng.random() < 0.5))


def numbered_crop_boxes(image_size: tuple[int, int], size: Size, *, count: int, seed: int, index: int) -> list[CropBox]:
    """Draws the positions of `count` training crops of image `index`, the r-th one from (seed, index, r) alone."""
    return [random_crop_box(image_size, size, np.random.default_rng([seed, index, r])) for r in range(count)]


def crop_at(image: Image.Image, size: Size, box: CropBox) -> UInt8[np.ndarray, "H W 3"]:
    """Cuts the training crop at a position."""
    cover = zoomed(size, box.side)
    image = _halved(image, cover)
    resized = _resized_size(image.size, cover)
    crop = _resized_part(image, resized, left=box.left, top=box.top, size=size)
    return np.asarray(ImageOps.mirror(crop) if box.flip else crop)


def random_crop(
    image: Image.Image, size: Size, rng: np.random.Generator, *, side: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Cuts a training crop: random zoom, random place, mirrored half of the time.

    Args:
      image: RGB image.
      size: of the crop.
      rng: random generator.
      side: see `CropBox`; None draws it with `random_side`.
    """
    return crop_at(image, size, random_crop_box(image.size, size, rng, side=side))


def center_crop(image: Image.Image, size: Size) -> UInt8[np.ndarray, "H W 3"]:
    """Cuts an evaluation crop: resized to cover it, then the centre (Dhariwal & Nichol 2021)."""
    height, width = height_and_width(size)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):  # resizing all of it would take gigabytes
        image = _halved(image, size)
        resized = _resized_size(image.size, size)
        left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
        return np.asarray(_resized_part(image, resized, left=left, top=top, size=size))
    image = resize_to_cover(image, size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))


def ten_crops(image: Image.Image, size: Size) -> UInt8[np.ndarray, "10 H W 3"]:
    """Cuts four corners and the centre from the centre of 1.1 times the size; then appends their mirror images."""
    height, width = height_and_width(size)
    large = (int(height * 1.1), int(width * 1.1))
    part = center_crop(image, large)
    below, right = large[0] - height, large[1] - width
    corners = [(0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2)]
    crops = np.stack([part[top : top + height, left : left + width] for top, left in corners])
    return np.concatenate([crops, crops[:, :, ::-1]])
