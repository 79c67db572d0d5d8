"""One image of any size through a tokenizer, from its file to its codes and back."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from fqgan_jax.api import Tokenizer
from fqgan_jax.data.images import read_image
from fqgan_jax.pictures.tokenizer_pictures import decode_parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """An image and its codes.

    Attributes:
      image: the pixels.
      codes: of the image with its edges repeated up to the next multiple of f.
    """

    image: UInt8[np.ndarray, "H W 3"]
    codes: Int[np.ndarray, "h w K"]


def read_scaled(path: Path, max_side: int, *, most_pixels: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file, scaled down until no side is longer than `max_side`.

    Raises:
      UnreadableImageError: the file is not an image, or has more than `most_pixels` pixels.
    """
    image = read_image(path, max_side, most_pixels=most_pixels)
    image.thumbnail((max_side, max_side))
    return np.asarray(image)


def encode_image(tokenizer: Tokenizer, image: UInt8[np.ndarray, "H W 3"]) -> EncodedImage:
    """Encodes an image of any size."""
    (height, width), f = image.shape[:2], tokenizer.downsampling
    padded = np.pad(image, ((0, -height % f), (0, -width % f), (0, 0)), mode="edge")
    return EncodedImage(image=image, codes=np.asarray(tokenizer.encode(padded[None]))[0])


def decode_image(
    tokenizer: Tokenizer, encoded: EncodedImage, *, kept: Bool[np.ndarray, " K"] | None = None
) -> Float[np.ndarray, "H W 3"]:
    """Decodes an image, without the edges that encoding added, to [-1, 1].

    Args:
      tokenizer: the one that encoded it.
      encoded: the image.
      kept: the sub-codebooks that take part; the others give every position their mean. None: all.
    """
    height, width = encoded.image.shape[:2]
    codes = encoded.codes[None]
    if kept is None:
        decoded = tokenizer.decode(codes)
    else:
        decoded = decode_parts(tokenizer.module, tokenizer.params, jnp.asarray(codes), kept=jnp.asarray(kept))
    return np.asarray(decoded)[0, :height, :width]
