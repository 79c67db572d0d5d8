"""Makes the README's pictures from a finished demo: `fqgan demo && python docs/generate/pictures.py runs/demo`."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fqgan_jax.api import load_tokenizer
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.sources.photos import PHOTOS
from fqgan_jax.pictures.tokenizer_pictures import save_codebook_parts

IMAGES = Path(__file__).parents[1] / "images"
SIDE = 128
LARGEST = (1100, 600)  # width and height of the JPEGs


def main(workdir: Path) -> None:
    """Writes the pictures of the demo in a work folder to docs/images."""
    save_codebook_parts(load_tokenizer(workdir / "tokenizer"), photographs(), IMAGES / "parts.png")
    for name in ("parts", "samples", "curves"):
        picture = Image.open((IMAGES if name == "parts" else workdir) / f"{name}.png").convert("RGB")
        picture.thumbnail(LARGEST)
        picture.save(IMAGES / f"{name}.jpg", quality=88, optimize=True)
    (IMAGES / "parts.png").unlink()


def photographs() -> np.ndarray:
    """Returns the centre of each bundled photograph, [n, SIDE, SIDE, 3] in [-1, 1]."""
    folder = Path(find_spec("skimage").origin).parent / "data"
    photos = [Image.open(folder / file).convert("RGB") for file in PHOTOS.values()]
    return to_float(np.stack([ImageOps.fit(photo, (SIDE, SIDE), Image.Resampling.LANCZOS) for photo in photos]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
