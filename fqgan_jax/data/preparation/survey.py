"""Reads every image of a source once and collects counts."""

import dataclasses
import io
from collections import Counter

import numpy as np
from jaxtyping import Int
from PIL import Image

from fqgan_jax.data.images import FORMATS, UnreadableImageError, read_image
from fqgan_jax.data.preparation.pool import Pool, Progress
from fqgan_jax.data.sources import Source

IMAGES_PER_TASK = 64


@dataclasses.dataclass
class Survey:
    """Counts over the readable images.

    Attributes:
      labels: number of images of each label.
      formats: number of images of each file format.
      sizes: width and height of each image.
      bytes: size of all files.
      damaged: reason by name of each unreadable image.
    """

    labels: Counter[int] = dataclasses.field(default_factory=Counter)
    formats: Counter[str] = dataclasses.field(default_factory=Counter)
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    bytes: int = 0
    damaged: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, other: "Survey") -> None:
        """Adds the counts of other images."""
        self.labels += other.labels
        self.formats += other.formats
        self.sizes += other.sizes
        self.bytes += other.bytes
        self.damaged |= other.damaged

    def size_table(self) -> Int[np.ndarray, "images 2"]:
        """Returns width and height of every readable image as a viewer shows it."""
        return np.array(self.sizes, int).reshape(-1, 2)


def survey(source: Source, pool: Pool) -> Survey:
    """Reads every image of a source at full scale."""
    everything = range(len(source))
    chunks = [everything[start : start + IMAGES_PER_TASK] for start in everything[::IMAGES_PER_TASK]]
    found = Survey()
    for part in pool.run(_survey_images, source, chunks, title="data", num_images=len(source)):
        found.add(part)
    return found


def _survey_images(source: Source, indices: range, progress: Progress) -> Survey:
    found = Survey()
    for index in indices:
        try:
            content = source.encoded(index)
            size = read_image(content).size
        except (UnreadableImageError, OSError) as error:
            found.damaged[source.name(index)] = str(error)
        else:
            found.labels[source.label(index)] += 1
            found.sizes.append(size)
            found.bytes += len(content)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                found.formats[str(image.format)] += 1
        progress()
    return found
