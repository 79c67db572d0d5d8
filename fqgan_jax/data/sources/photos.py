"""The photographs that come with scikit-image: images without any download."""

import dataclasses
import io
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from fqgan_jax.data.images import read_image


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph inside the scikit-image wheel."""

    name: str
    file: str


PHOTOS = (
    Photo("astronaut", "astronaut.png"),
    Photo("camera man", "camera.png"),
    Photo("cat", "chelsea.png"),
    Photo("coffee", "coffee.png"),
    Photo("coins", "coins.png"),
    Photo("galaxies", "hubble_deep_field.jpg"),
    Photo("motorcycle", "motorcycle_left.png"),
    Photo("rocket", "rocket.jpg"),
)


class BundledPhotos:
    """Square crops of the photographs that come with scikit-image; the class is the photograph.

    A strip at the right edge, a fifth of the width, is kept aside: validation crops lie inside it, training crops
    left of it.
    """

    root = ""
    STRIP = 0.2
    TRAIN_SIDES = (0.6, 0.8, 1.0)  # of the shorter side of the training part
    STEPS = 4  # positions of the crops along each axis

    def __init__(self, split: str):
        self.class_names = tuple(photo.name for photo in PHOTOS)
        folder = Path(find_spec("skimage").origin).parent / "data"
        self._photos = [read_image(folder / photo.file) for photo in PHOTOS]
        self._crops = [
            (label, box)
            for label, photo in enumerate(self._photos)
            for box in (self._validation_boxes if split == "validation" else self._train_boxes)(photo)
        ]

    def _train_boxes(self, photo: Image.Image) -> list[tuple[int, int, int, int]]:
        width = round(photo.width * (1 - self.STRIP))
        sides = [round(share * min(width, photo.height)) for share in self.TRAIN_SIDES]
        return sorted({box for side in sides for box in _grid_of_squares(0, width, photo.height, side, self.STEPS)})

    def _validation_boxes(self, photo: Image.Image) -> list[tuple[int, int, int, int]]:
        left = round(photo.width * (1 - self.STRIP))
        side = min(photo.width - left, photo.height)
        return _grid_of_squares(left, photo.width, photo.height, side, photo.height // side)

    def __len__(self) -> int:
        return len(self._crops)

    def name(self, index: int) -> str:
        label, box = self._crops[index]
        return f"{self.class_names[label]} {box}"

    def label(self, index: int) -> int:
        return self._crops[index][0]

    def encoded(self, index: int) -> bytes:
        buffer = io.BytesIO()
        self.read(index).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        label, box = self._crops[index]
        return self._photos[label].crop(box)


def _grid_of_squares(left: int, right: int, height: int, side: int, steps: int) -> list[tuple[int, int, int, int]]:
    """Squares of a side, evenly spread over the columns left..right and rows 0..height, each once."""
    spread = lambda room: sorted({round(room * i / max(steps - 1, 1)) for i in range(steps)})
    lefts, tops = spread(right - left - side), spread(height - side)
    return [(left + x, y, left + x + side, y + side) for y in tops for x in lefts]
