"""What frozen networks see of images: resized to their size, and normalized."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Resize = Callable[[Float[Array, "B H W 3"], int], Float[Array, "B S S 3"]]


def nearest(images: Float[Array, "B H W 3"], size: int) -> Float[Array, "B {size} {size} 3"]:
    """Resizes to the nearest neighbour: source index floor(i * in / out)."""
    rows, columns = (np.arange(size) * side // size for side in images.shape[1:3])
    return images[:, rows[:, None], columns]


def bicubic(images: Float[Array, "B H W 3"], size: int) -> Float[Array, "B {size} {size} 3"]:
    """Resizes with Keys' kernel (1981), a = -0.5, antialiased where it reduces, as Pillow does; not clipped."""
    return jax.image.resize(images, (len(images), size, size, 3), "bicubic")


def preprocess(
    images: Float[Array, "B H W 3"],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: int = 224,
    resize: Resize = nearest,
) -> Float[Array, "B {size} {size} 3"]:
    """Returns what a network sees of images in [-1, 1]; float32.

    Images are resized, moved to [0, 1] and normalized with a mean and a standard deviation for each channel.
    """
    images = (resize(images.astype(jnp.float32), size) + 1) / 2
    return (images - jnp.array(mean)) / jnp.array(std)
