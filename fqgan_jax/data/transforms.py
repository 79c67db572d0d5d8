"""Crops, which take RGB images and return squares of `size` x `size`; and pixels as the networks see them."""

import math

import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

ZOOM = 1.25  # training crops come from images whose shorter side is up to this times the crop


def to_float(images: UInt8[np.ndarray, "*s"] | UInt8[Array, "*s"]) -> Float[np.ndarray, "*s"] | Float[Array, "*s"]:
    """[0, 255] to float32 [-1, 1]; NumPy's stay NumPy's, JAX's JAX's."""
    return images.astype(np.float32) / 127.5 - 1


def resize_shorter_side(image: Image.Image, side: int) -> Image.Image:
    """Box-halves while at least twice too large, then bicubic: ADM's resize (Dhariwal & Nichol 2021)."""
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    width, height = max(side, round(image.width * scale)), max(side, round(image.height * scale))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Training crop: shorter side uniform in [size, 1.25 size], random square, random mirror image."""
    side = int(rng.integers(size, math.floor(size * ZOOM) + 1))
    image = resize_shorter_side(image, side)
    left = int(rng.integers(image.width - size + 1))
    top = int(rng.integers(image.height - size + 1))
    crop = np.asarray(image.crop((left, top, left + size, top + size)))
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def center_crop(image: Image.Image, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Evaluation crop: shorter side to `size`, centre square (ADM's protocol)."""
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
