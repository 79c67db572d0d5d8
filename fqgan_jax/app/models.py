"""What the page does with models, without the page."""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from fqgan_jax.api import Generator, Tokenizer
from fqgan_jax.data.images import UnreadableImageError, read_image
from fqgan_jax.data.pixels import to_float, to_uint8
from fqgan_jax.data.transforms import center_crop
from fqgan_jax.errors import UserError, check
from fqgan_jax.evaluation.metrics.reconstruction_metrics import psnr
from fqgan_jax.pictures.code_maps import code_map
from fqgan_jax.pictures.single_image import EncodedImage, decode_image, encode_image, read_scaled

Picture = UInt8[np.ndarray, "H W 3"]

MOST_PIXELS = 50_000_000  # of an image file: 150 MB when decoded
MOST_SAMPLES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How samples are drawn; see `Generator.sample`."""

    label: int
    count: int = 4
    seed: int = 0
    guidance: float = 2.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def open_image(tokenizer: Tokenizer, file: Path, *, max_side: int) -> EncodedImage:
    """Reads and encodes an image file, scaled down until no side is longer than `max_side`.

    Raises:
      UserError: the file is no image, or too large.
    """
    try:
        return encode_image(tokenizer, read_scaled(file, max_side, most_pixels=MOST_PIXELS))
    except UnreadableImageError as error:
        raise _refusal(file, error) from error


def open_square(tokenizer: Tokenizer, file: Path, *, max_side: int) -> EncodedImage:
    """Reads and encodes the centre square of an image file, of at most `max_side` pixels.

    Raises:
      UserError: the file is no image, or too large.
    """
    side = max(1, max_side // tokenizer.downsampling) * tokenizer.downsampling
    try:
        return encode_image(tokenizer, center_crop(read_image(file, side, most_pixels=MOST_PIXELS), side))
    except UnreadableImageError as error:
        raise _refusal(file, error) from error


def _refusal(file: Path, error: UnreadableImageError) -> UserError:
    return UserError(f"{file.name} cannot be used ({error}): give a JPEG, PNG, WebP, BMP, GIF, TIFF or PPM image.")


def reconstruct(tokenizer: Tokenizer, encoded: EncodedImage, kept: list[int]) -> tuple[Picture, str]:
    """Decodes an image from some of its sub-codebooks; returns it and a line of numbers about it."""
    decoded = decode_image(tokenizer, encoded, kept=np.isin(np.arange(tokenizer.module.num_codebooks), kept))
    quality = float(psnr(decoded[None], to_float(encoded.image)[None])[0])
    return to_uint8(decoded), f"**{quality:.2f} dB** PSNR · {_sizes(tokenizer, encoded)}"


def _sizes(tokenizer: Tokenizer, encoded: EncodedImage) -> str:
    (height, width), (h, w, K) = encoded.image.shape[:2], encoded.codes.shape
    bits = h * w * K * math.log2(tokenizer.module.codebook_size)
    codes = f"{K} x {w} x {h} codes" if K > 1 else f"{w} x {h} codes"
    return f"{width} x {height} pixels · {codes} · {bits / 8000:.1f} kB ({bits / (height * width):.2f} bits a pixel)"


def code_maps(tokenizer: Tokenizer, encoded: EncodedImage, colours: UInt8[np.ndarray, "K N 3"]) -> list:
    """Returns a coloured map of the codes of each sub-codebook, and its caption."""
    height, width = encoded.image.shape[:2]
    maps = []
    for k, table in enumerate(colours):
        codes = encoded.codes[..., k]
        caption = f"{k}: {len(np.unique(codes))} of {len(table)} entries"
        maps.append((code_map(codes, table, enlarged=tokenizer.downsampling)[:height, :width], caption))
    return maps


def mix(tokenizer: Tokenizer, first: EncodedImage, second: EncodedImage, from_second: list[int]) -> Picture:
    """Decodes the codes of the first image, but those of some sub-codebooks from the second."""
    taken = np.isin(np.arange(tokenizer.module.num_codebooks), from_second)
    mixed = dataclasses.replace(first, codes=np.where(taken, second.codes, first.codes))
    return to_uint8(decode_image(tokenizer, mixed))


def draw(generator: Generator, tokenizer: Tokenizer, sampling: Sampling) -> list[Picture]:
    """Draws samples of one class.

    Raises:
      UserError: a setting out of range.
    """
    check(1 <= sampling.count <= MOST_SAMPLES, f"Draw 1 to {MOST_SAMPLES} samples at a time, not {sampling.count}.")
    whole = isinstance(sampling.seed, int) and 0 <= sampling.seed < 2**32
    check(whole, f"The seed must be a whole number from 0 to {2**32 - 1}.")
    codes = generator.sample(
        [sampling.label] * sampling.count,
        key=jax.random.key(sampling.seed),
        guidance=sampling.guidance,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
    return list(to_uint8(np.asarray(tokenizer.decode(codes))))
