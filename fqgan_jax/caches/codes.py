"""The code cache: a frozen tokenizer's codes of a dataset, as ArrayRecord shards.

A record is one readable image: its label (int32), the positions of its crops if these are random (int32 `[crops, 4]`,
see `transforms.CropBox`), and its codes `[crops, h, w, K]`. The manifest holds sizes, class names, the source, and the
fingerprint of the tokenizer that wrote the cache.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

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
from fqgan_jax.config.rules import Choice, Many, Text, Whole, with_tuples
from fqgan_jax.data.stream import Batch, Prepared, Stream, train_batches
from fqgan_jax.data.transforms import CropBox
from fqgan_jax.errors import UserError, check

MANIFEST = "codes.json"
VALIDATION = "validation"  # folder of the held-out codes in that of the codes of training


# What the fields of the manifest may be.
_RULES = {
    "tokenizer": Text(),
    "num_codebooks": Whole(1, 64),
    "codebook_size": Whole(2, 2**24),
    "grid": Many(Whole(1, 2**12), (2,)),
    "crops": Whole(1, 2**16),
    "kind": Choice(("ten", "center", "random")),
    "seed": Whole(0, 2**64 - 1),
    "class_names": Many(Text()),
    "count": Whole(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodesManifest:
    """Describes a code cache.

    Attributes:
      tokenizer: fingerprint of the tokenizer.
      num_codebooks: K.
      codebook_size: N.
      grid: (h, w).
      crops: number of crops of each image.
      kind: "ten", "center" or "random".
      seed: seed of random crops; 0 for the other kinds.
      class_names: names of the labels.
      count: number of records.
    """

    tokenizer: str
    num_codebooks: int
    codebook_size: int
    grid: tuple[int, int]
    crops: int
    kind: str
    seed: int
    class_names: tuple[str, ...]
    count: int = 0

    @property
    def dtype(self) -> np.dtype:
        """Type of the codes: 16 bits if these suffice."""
        return np.dtype("<u2") if self.codebook_size <= 2**16 else np.dtype("<i4")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one record's codes."""
        return (self.crops, *self.grid, self.num_codebooks)

    @property
    def codes_offset(self) -> int:
        """Position of the codes in a record, in bytes."""
        return LABEL_BYTES + (CROP_BOX_BYTES * self.crops if self.kind == "random" else 0)

    @property
    def record_bytes(self) -> int:
        """Size of a record."""
        return self.codes_offset + self.dtype.itemsize * math.prod(self.shape)

    def encode(self, example: Example, rows: dict[str, np.ndarray]) -> bytes | None:
        """Returns an image's record, or None if it could not be read."""
        if example.crops is None:
            return None
        codes = np.ascontiguousarray(rows["codes"], self.dtype).tobytes()
        return encode_label(example.label) + encode_crop_boxes(example.crops.boxes) + codes


class CodeCache:
    """Random access to a code cache.

    Attributes:
      stored: description of what the cache holds.
      manifest: description of what it gives, all sub-codebooks or the first.
      state: hash of what it holds.
    """

    def __init__(self, folder: Path, *, codebooks: int = 0):
        """Opens a cache, all of it or its first sub-codebooks alone.

        Raises:
          UserError: the folder holds no complete cache, or a damaged one, or not so many sub-codebooks.
        """
        content = read_manifest(folder / MANIFEST, _RULES, title="code cache", command="fqgan tokenize")
        self.stored = CodesManifest(**{name: with_tuples(content[name]) for name in _RULES})
        self._folder = folder
        K = self.stored.num_codebooks
        check(
            0 <= codebooks <= K,
            f"data.codebooks={codebooks}, but the code cache {folder} holds {K} sub-codebooks: choose 1 to {K}, or 0 "
            "for all.",
        )
        self.manifest = dataclasses.replace(self.stored, num_codebooks=codebooks or K)
        self._records = open_records(folder, content)
        self.state = records_state(content)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[int, Int[np.ndarray, "crops h w K"]]:
        """Returns label and codes of an image.

        Raises:
          UserError: the record is not what the manifest says.
        """
        record, stored = self._records[index], self.stored
        if len(record) == stored.record_bytes:
            label, codes = decode_label(record), np.frombuffer(record, stored.dtype, offset=stored.codes_offset)
            if 0 <= label < len(stored.class_names) and codes.min() >= 0 and codes.max() < stored.codebook_size:
                return label, codes.reshape(stored.shape)[..., : self.manifest.num_codebooks]
        raise UserError(
            f"Record {index} of the code cache {self._folder} does not fit its {MANIFEST}: write it again with "
            "fqgan tokenize."
        )

    def crop_boxes(self, index: int) -> list[CropBox]:
        """Positions of an image's random crops."""
        return decode_crop_boxes(self._records[index], self.manifest.crops)


def held_out_batches(cache: CodeCache, batch_size: int) -> Iterator[Batch]:
    """Yields the codes of all crops once and in order; "mask" is 0 for the last batch's filler."""
    crops = cache.manifest.crops
    for first in range(0, len(cache) * crops, batch_size):
        batch = {
            "codes": np.zeros((batch_size, *cache.manifest.shape[1:]), np.int32),
            "label": np.zeros(batch_size, np.int32),
            "mask": np.zeros(batch_size, np.float32),
        }
        for row, number in enumerate(range(first, min(first + batch_size, len(cache) * crops))):
            label, codes = cache[number // crops]
            batch["codes"][row], batch["label"][row], batch["mask"][row] = codes[number % crops], label, 1
        yield batch


def code_batches(cache: CodeCache, stream: Stream) -> Iterator[Batch]:
    """Yields training batches: "codes" int32 [B, h, w, K] of a random crop of each image, and "label" int32 [B]."""

    def prepare(element: tuple[int, np.ndarray], rng: np.random.Generator) -> Prepared:
        label, codes = element
        return {"codes": codes[rng.integers(len(codes))].astype(np.int32), "label": np.int32(label)}

    return train_batches(cache, prepare, stream)
