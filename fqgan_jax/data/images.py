"""Reading and writing image files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fqgan_jax.files import read_regular_file

# No other decoder of Pillow sees the content of a file: some of them start programs, or fail in ways of their own.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# What decoders raise for damaged files.
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError),
    *(RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)


class UnreadableImageError(Exception):
    """A file does not hold a whole image."""


def read_image(file: bytes | Path, shortest_side: int | None = None, *, most_pixels: int | None = None) -> Image.Image:
    """Decodes an image to 8-bit RGB as a viewer would show it.

    EXIF rotation is applied, transparent pixels are blended with white, 16-bit values are scaled to 8 bits, and only
    the first frame of an animation is read. Formats are those in `FORMATS`.

    Args:
      file: the content of an image file, or its path.
      shortest_side: decode JPEG files at a reduced scale if the result keeps at least so many pixels on its shorter
        side; None decodes at full scale.
      most_pixels: larger images are not decoded.

    Raises:
      UnreadableImageError: the file is not an image, or a truncated one, or larger than `most_pixels`.
    """
    try:
        # Read at once: each of many small reads would wait for the interpreter lock.
        content = file if isinstance(file, bytes) else read_regular_file(file)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if most_pixels is not None and image.width * image.height > most_pixels:
                raise UnreadableImageError(f"{image.width} x {image.height} pixels are more than {most_pixels:,}")
            if shortest_side is not None:
                image.draft(None, _reduced_size(image.size, shortest_side))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            converted = _to_rgb(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image") from error
    except _DECODING_ERRORS as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error
    return converted


def png_bytes(image: Image.Image) -> bytes:
    """Returns the content of a lightly compressed PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _reduced_size(size: tuple[int, int], shortest_side: int) -> tuple[int, int]:
    scale = shortest_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit values, which Pillow may hold in 32 bits
        return _from_floats(np.asarray(image, np.float64) / 257)
    if image.mode == "F":  # values up to 1 mean the range [0, 1], others [0, 255]
        values = np.nan_to_num(np.asarray(image, np.float64))
        return _from_floats(values * 255 if values.max() <= 1 else values)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_floats(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
