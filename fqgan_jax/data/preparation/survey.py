"""What a source holds: every image is read once and counted."""

import dataclasses
import io
from collections import Counter

import numpy as np
from jaxtyping import Int
from PIL import Image

from fqgan_jax.data.images import UnreadableImageError, read_image
from fqgan_jax.data.preparation.pool import Pool
from fqgan_jax.data.sources import Source

CHUNK = 64  # images that a worker takes at a time


@dataclasses.dataclass
class Survey:
    """Counts over the readable images; `damaged` maps the names of the others to the reasons."""

    labels: Counter[int] = dataclasses.field(default_factory=Counter)
    formats: Counter[str] = dataclasses.field(default_factory=Counter)
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    bytes: int = 0
    damaged: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, other: "Survey") -> None:
        """Adds another's counts to this one's."""
        self.labels += other.labels
        self.formats += other.formats
        self.sizes += other.sizes
        self.bytes += other.bytes
        self.damaged |= other.damaged

    def size_table(self) -> Int[np.ndarray, "images 2"]:
        """Width and height of every readable image, as they are shown."""
        return np.array(self.sizes, int).reshape(-1, 2)


def survey(source: Source, pool: Pool) -> Survey:
    """Reads every image of a source at full scale."""
    chunks = [(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)]
    whole = Survey()
    for part in pool.run(survey_chunk, source, chunks, "data", len(source)):
        whole.add(part)
    return whole


def survey_chunk(source: Source, start: int, stop: int, tick) -> Survey:
    """The survey of images `start` to `stop`; `tick` is called after every image."""
    found = Survey()
    for index in range(start, stop):
        try:
            content = source.encoded(index)
            size = read_image(content).size
        except (UnreadableImageError, OSError) as error:
            found.damaged[source.name(index)] = str(error)
        else:
            found.labels[source.label(index)] += 1
            found.sizes.append(size)
            found.bytes += len(content)
            with Image.open(io.BytesIO(content)) as image:
                found.formats[image.format] += 1
        tick()
    return found
