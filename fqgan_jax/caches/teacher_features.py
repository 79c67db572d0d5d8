"""The feature cache: frozen teachers' features of R augmentations of every image, as ArrayRecord shards.

Record i belongs to image i of the source: its label (int32), the positions of its augmentations (int32 `[R, 4]`, see
`transforms.CropBox`), and each teacher's features (float32 `[R, W]`) in the manifest's order. The record of an image
that could not be read is empty.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from fqgan_jax.caches.records import (
    CROP_BOX_BYTES,
    LABEL_BYTES,
    Example,
    decode_crop_boxes,
    decode_label,
    encode_crop_boxes,
    encode_label,
    open_records,
    read_manifest,
    records_state,
)
from fqgan_jax.config.rules import SIZE, Either, Fields, Nothing, Text, Whole, check_complete, with_tuples
from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.loader import collect_skipped
from fqgan_jax.data.skipping import Skipped, read_or_next
from fqgan_jax.data.sources import Source, fingerprint
from fqgan_jax.data.stream import Batch, Prepared, Stream, train_batches
from fqgan_jax.data.transforms import CropBox, Size, crop_at, largest_side, needed_side, written_size
from fqgan_jax.errors import UserError, check

MANIFEST = "features.json"


# What the fields of the manifest, and those of a teacher in it, may be.
_RULES = {
    "image_size": SIZE,
    "augmentations": Whole(1, 2**16),
    "decode": Text(),
    "teachers": Fields(),
    "split": Text(),
    "images": Whole(),
    "source": Text(),
    "source_fingerprint": Text(),
}
_TEACHER = {"width": Whole(1, 2**16), "weights": Either((Nothing(), Text()))}


class Augmented(NamedTuple):
    """A record: an image's label, the positions of its augmentations, and each teacher's features of them."""

    label: int
    crop_boxes: list[CropBox]
    features: dict[str, Float[np.ndarray, "R W"]]


def encode_features(teachers: Sequence[str], example: Example, rows: Mapping[str, np.ndarray]) -> bytes:
    """Returns an image's record, which is empty if the image could not be read."""
    if example.crops is None:
        return b""
    features = b"".join(np.asarray(rows[name], "<f4").tobytes() for name in teachers)
    return encode_label(example.label) + encode_crop_boxes(example.crops.boxes) + features


class FeatureCache:
    """Random access to a feature cache.

    Attributes:
      folder: folder of the cache.
      manifest: its manifest.
      image_size: of the crops, a side or (height, width).
      augmentations: R.
      full_decode: whether JPEG files were decoded at full scale.
      teachers: "width" and "weights" (SHA-256) by teacher name.
      state: hash of what it holds.
    """

    def __init__(self, folder: Path):
        """Opens a cache.

        Raises:
          UserError: the folder holds no complete cache, or a damaged one.
        """
        self.folder = folder
        path = folder / MANIFEST
        self.manifest = read_manifest(path, _RULES, title="feature cache", command="fqgan features")
        self.image_size = with_tuples(self.manifest["image_size"])
        self.augmentations = self.manifest["augmentations"]
        self.full_decode = self.manifest["decode"] == "full"
        self.teachers: dict[str, dict] = self.manifest["teachers"]
        for name, teacher in self.teachers.items():
            check_complete(teacher, _TEACHER, where=f"{path}: {name}: ", remedy="write it again with fqgan features")
        self._records = open_records(folder, self.manifest)
        self.state = records_state(self.manifest)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Augmented:
        """Returns the record of an image.

        Raises:
          UnreadableImageError: the record is empty.
        """
        record, R = self._records[index], self.augmentations
        if not record:
            raise UnreadableImageError("it could not be read when its features were computed")
        width = sum(teacher["width"] for teacher in self.teachers.values())
        check(
            len(record) == LABEL_BYTES + R * (CROP_BOX_BYTES + 4 * width),
            f"Record {index} of the feature cache {self.folder} does not fit its {MANIFEST}: write it again with "
            "fqgan features.",
        )
        offset, features = LABEL_BYTES + CROP_BOX_BYTES * R, {}
        for name, teacher in self.teachers.items():
            width = teacher["width"]
            features[name] = np.frombuffer(record, "<f4", R * width, offset).reshape(R, width)
            offset += 4 * R * width
        return Augmented(decode_label(record), decode_crop_boxes(record, R), features)

    def check(
        self, teachers: Sequence[str], *, image_size: Size, full_decode: bool, weights: Mapping[str, str]
    ) -> None:
        """Raises `UserError` if a run with these settings cannot use the cache.

        Args:
          teachers: teachers of the run.
          image_size: `data.image_size` of the run.
          full_decode: `data.full_decode` of the run.
          weights: SHA-256 of the teachers' weights, for those that are known on this machine.
        """
        again = "write another with fqgan features"
        if missing := [name for name in teachers if name not in self.teachers]:
            raise UserError(
                f"data.features={self.folder} has no features of {', '.join(missing)} (only of "
                f"{', '.join(self.teachers)}): {again}, or change the teachers."
            )
        if image_size != self.image_size:
            raise UserError(
                f"data.features={self.folder} describes crops of {written_size(self.image_size)} pixels, not of "
                f"data.image_size={image_size}: {again}, or change the size."
            )
        if full_decode != self.full_decode:
            raise UserError(
                f"data.features={self.folder} describes images decoded at {self.manifest['decode']} scale: set "
                f"data.full_decode={self.full_decode}, or {again}."
            )
        for name in teachers:
            if weights.get(name, self.teachers[name]["weights"]) != self.teachers[name]["weights"]:
                raise UserError(
                    f"data.features={self.folder} was computed with other weights of {name} than those fetched on "
                    f"this machine: {again}, or fetch the weights that the cache was computed with."
                )

    def check_source(self, source: Source, name: str, split: str) -> None:
        """Raises `UserError` if the records do not belong to the images of a source."""
        recorded = {key: self.manifest[key] for key in ("split", "images", "source_fingerprint")}
        if recorded != {"split": split, "images": len(source), "source_fingerprint": fingerprint(source)}:
            raise UserError(
                f"data.features={self.folder} describes the {recorded['images']} images of {self.manifest['source']} "
                f"({recorded['split']} split), not the {len(source)} images of data.source={name} ({split} "
                "split): write another with fqgan features, or change the source (or data.validation_fraction)."
            )


class ImagesWithFeatures:
    """A source in which images without features in a cache count as unreadable."""

    def __init__(self, source: Source, cache: FeatureCache):
        self.source, self.cache = source, cache
        self.class_names, self.root = source.class_names, source.root
        self.name, self.label, self.encoded = source.name, source.label, source.encoded

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int, shortest_side: int | None = None) -> Image.Image:
        """Reads an image of the source.

        Raises:
          UnreadableImageError: the image or its record cannot be read.
        """
        self.cache[index]  # raises for an empty record
        return self.source.read(index, shortest_side)


def feature_batches(
    source: Source,
    cache: FeatureCache,
    stream: Stream,
    *,
    teachers: Sequence[str],
    skipped: Skipped,
) -> Iterator[Batch]:
    """Yields training batches like `image_batches`: a random stored augmentation of each image, and its features.

    Args:
      source: images that the cache describes (see `FeatureCache.check_source`).
      cache: the features.
      stream: batch size, seed, first step, and threads and processes that read.
      teachers: teachers whose features are read.
      skipped: collects unreadable images.

    Raises:
      UserError: when a batch is requested: more images were skipped than `skipped` allows.
    """
    images, size = ImagesWithFeatures(source, cache), cache.image_size
    side = None if cache.full_decode else needed_side(size, largest_side(size))

    def prepare(index: int, rng: np.random.Generator) -> Prepared:
        served, image = read_or_next(images, int(index), side)
        record, r = cache[served], rng.integers(cache.augmentations)
        crop = crop_at(image, size, record.crop_boxes[r])
        features = {f"feature/{name}": record.features[name][r] for name in teachers}
        label, numbers = np.int32(record.label), {"requested": np.int64(index), "served": np.int64(served)}
        return {"image": crop, "label": label, **numbers, **features}

    return collect_skipped(train_batches(range(len(source)), prepare, stream), images, skipped)
