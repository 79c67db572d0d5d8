"""The photographs that come with scikit-image: images without any download."""

from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from fqgan_jax.data.images import png_bytes, read_image
from fqgan_jax.data.sources.source import Source, sources

Box = tuple[int, int, int, int]  # left, top, right, bottom
PHOTOS = {
    "astronaut": "astronaut.png",
    "camera man": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}  # class name to file in the scikit-image wheel
HELD_OUT_WIDTH = 0.2  # part of each photograph's width, at the right edge, that is the validation split
TRAIN_SIDES = (0.6, 0.8, 1.0)  # sides of training crops, relative to the shorter side of the training part
NUM_STEPS = 4  # positions of the training crops along each axis


@sources("photos")
class BundledPhotos(Source):
    """Square crops of eight photographs; each photograph is a class.

    A strip at the right edge of each photograph is held out: validation crops lie inside it, training crops left of it.
    """

    usage = "photos (bundled)"

    @staticmethod
    def recognizes(name: str) -> bool:
        """Whether the name is "photos"."""
        return name == "photos"

    def __init__(self, name: str, split: str, **_):
        del name
        self.class_names = tuple(PHOTOS)
        spec = find_spec("skimage")
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent / "data"
        self._photos = [read_image(folder / file) for file in PHOTOS.values()]
        boxes_of = _validation_boxes if split == "validation" else _train_boxes
        self._crops = [(label, box) for label, photo in enumerate(self._photos) for box in boxes_of(photo)]

    def __len__(self) -> int:
        return len(self._crops)

    def name(self, index: int) -> str:
        """Name of the photograph and box of the crop."""
        label, box = self._crops[index]
        return f"{self.class_names[label]} {box}"

    def label(self, index: int) -> int:
        """Number of the photograph."""
        return self._crops[index][0]

    def encoded(self, index: int) -> bytes:
        """The crop as a PNG file."""
        return png_bytes(self.read(index))

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        """The crop at full scale, whatever `shortest_side` is."""
        del shortest_side
        label, box = self._crops[index]
        return self._photos[label].crop(box)


def _train_boxes(photo: Image.Image) -> list[Box]:
    width = round(photo.width * (1 - HELD_OUT_WIDTH))
    boxes = set()
    for relative_side in TRAIN_SIDES:
        side = round(relative_side * min(width, photo.height))
        lefts, tops = _even_positions(width - side, NUM_STEPS), _even_positions(photo.height - side, NUM_STEPS)
        boxes |= {(left, top, left + side, top + side) for top in tops for left in lefts}
    return sorted(boxes)


def _validation_boxes(photo: Image.Image) -> list[Box]:
    left = round(photo.width * (1 - HELD_OUT_WIDTH))
    side = min(photo.width - left, photo.height)
    num_steps = photo.height // side
    lefts, tops = _even_positions(photo.width - left - side, num_steps), _even_positions(photo.height - side, num_steps)
    return [(left + x, top, left + x + side, top + side) for top in tops for x in lefts]


def _even_positions(largest: int, num_steps: int) -> list[int]:
    """Evenly spread positions from 0 to the largest one, without duplicates."""
    return sorted({round(largest * i / max(num_steps - 1, 1)) for i in range(num_steps)})
