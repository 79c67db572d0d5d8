"""Reads any image file into RGB."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class UnreadableImage(Exception):
    """A file that does not hold a whole image."""


def read_image(file: bytes | Path, shortest_side: int | None = None) -> Image.Image:
    """Decodes an image to 8-bit RGB as a viewer would show it.

    EXIF rotation is applied, transparency is laid on white, 16-bit values are scaled, of an animation the first frame
    is taken. JPEG files are decoded at a reduced scale where the result keeps at least `shortest_side` pixels.

    Raises:
      UnreadableImage: not an image, or a truncated one.
    """
    try:
        # Read at once: every small read would wait for Python's lock among threads.
        with Image.open(io.BytesIO(file if isinstance(file, bytes) else file.read_bytes())) as image:
            if shortest_side is not None:
                image.draft(None, _reduced_size(image.size, shortest_side))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(str(error) or type(error).__name__) from error


def _reduced_size(size: tuple[int, int], shortest_side: int) -> tuple[int, int]:
    scale = shortest_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits, also where Pillow holds them in 32
        return _from_floats(np.asarray(image, np.float64) / 257)
    if image.mode == "F":  # taken as [0, 1] where nothing is larger, else as 8-bit values
        values = np.asarray(image, np.float64)
        return _from_floats(values * 255 if values.max() <= 1 else values)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_floats(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")
