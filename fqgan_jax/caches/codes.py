"""The code cache: a frozen tokenizer's codes of a dataset, as ArrayRecord shards.

A record is one readable image: its label (int32), the positions of its crops if these are random (int32 `[crops, 4]`,
see `transforms.CropBox`), and its codes `[crops, h, w, K]`. The manifest holds sizes, class names, the source, and the
fingerprint of the tokenizer that wrote the cache.
"""

import dataclasses
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
)
from fqgan_jax.data.stream import Batch, Stream, train_batches
from fqgan_jax.data.transforms import CropBox
from fqgan_jax.errors import UserError

MANIFEST = "codes.json"


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

    def encode(self, example: Example, rows: dict[str, np.ndarray]) -> bytes | None:
        """Returns an image's record, or None if it could not be read."""
        if example.crops is None:
            return None
        codes = np.ascontiguousarray(rows["codes"], self.dtype).tobytes()
        return encode_label(example.label) + encode_crop_boxes(example.crops.boxes) + codes


class CodeCache:
    """Random access to a code cache.

    Attributes:
      manifest: description of the cache.
    """

    def __init__(self, folder: Path):
        """Opens a cache.

        Raises:
          UserError: the folder holds no complete cache, or a damaged one.
        """
        content = read_manifest(folder / MANIFEST, title="code cache", command="fqgan tokenize")
        names = [field.name for field in dataclasses.fields(CodesManifest)]
        try:
            fields = {name: content[name] for name in names}
        except KeyError as error:
            raise UserError(f"{folder / MANIFEST} lacks {error}: write it again with fqgan tokenize.") from error
        tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        self.manifest = CodesManifest(**tuples)
        self._records = open_records(folder, content)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[int, Int[np.ndarray, "crops h w K"]]:
        """Label and codes of an image."""
        record, manifest = self._records[index], self.manifest
        codes = np.frombuffer(record, manifest.dtype, offset=manifest.codes_offset).reshape(manifest.shape)
        return decode_label(record), codes

    def crop_boxes(self, index: int) -> list[CropBox]:
        """Positions of an image's random crops."""
        return decode_crop_boxes(self._records[index], self.manifest.crops)


def code_batches(cache: CodeCache, stream: Stream) -> Iterator[Batch]:
    """Yields training batches: "codes" int32 [B, h, w, K] of a random crop of each image, and "label" int32 [B]."""

    def prepare(element: tuple[int, np.ndarray], rng: np.random.Generator) -> Batch:
        label, codes = element
        return {"codes": codes[rng.integers(len(codes))].astype(np.int32), "label": np.int32(label)}

    return train_batches(cache, prepare, stream)
