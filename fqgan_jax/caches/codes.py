"""The code cache: what the frozen tokenizer made of a dataset, as ArrayRecord shards.

A record is one readable image: its label (int32), where its crops are random ones their boxes (int32 `[crops, 4]`,
see `transforms.CropBox`), and its codes `[crops, h, w, K]`; the manifest holds sizes, class names, source and the
fingerprint of the tokenizer that wrote it.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

from fqgan_jax.caches.records import Example, decode_crop_boxes, open_records, read_manifest
from fqgan_jax.data.stream import Batch, Stream, train_batches
from fqgan_jax.data.transforms import CropBox
from fqgan_jax.errors import UserError

MANIFEST = "codes.json"
LABEL_BYTES = 4


@dataclasses.dataclass(frozen=True)
class CodesManifest:
    """Describes a code cache.

    Attributes:
      tokenizer: the tokenizer's fingerprint.
      num_codebooks, codebook_size, grid: of the codes.
      crops: how many each image has.
      kind: "ten", "center" or "random"; `seed` belongs to the latter.
      class_names: of the labels.
      count: records.
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
        """Of the codes: 16 bits where they suffice."""
        return np.dtype("<u2") if self.codebook_size <= 2**16 else np.dtype("<i4")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one record's codes."""
        return (self.crops, *self.grid, self.num_codebooks)

    @property
    def boxes_bytes(self) -> int:
        """Of one record's boxes."""
        return 16 * self.crops if self.kind == "random" else 0

    def encode(self, example: Example, rows: dict[str, np.ndarray]) -> bytes | None:
        """An image's record; none of an unreadable one."""
        if example.crops is None:
            return None
        codes = np.ascontiguousarray(rows["codes"], self.dtype).tobytes()
        return np.array(example.label, "<i4").tobytes() + example.crops.boxes.astype("<i4").tobytes() + codes


class CodeCache:
    """Random access to a code cache."""

    def __init__(self, folder: Path):
        content = read_manifest(folder, MANIFEST, "code cache", "fqgan tokenize")
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
        record, offset = self._records[index], LABEL_BYTES + self.manifest.boxes_bytes
        codes = np.frombuffer(record, self.manifest.dtype, offset=offset).reshape(self.manifest.shape)
        return int(np.frombuffer(record, "<i4", 1)[0]), codes

    def boxes(self, index: int) -> list[CropBox]:
        """Of a record's random crops."""
        return decode_crop_boxes(self._records[index], LABEL_BYTES, self.manifest.crops)


def code_batches(cache: CodeCache, stream: Stream) -> Iterator[Batch]:
    """Training batches: "codes" int32 [B, h, w, K] of one crop of each image at random, "label" int32 [B]."""

    def prepare(element: tuple[int, np.ndarray], rng: np.random.Generator) -> Batch:
        label, codes = element
        return {"codes": codes[rng.integers(len(codes))].astype(np.int32), "label": np.int32(label)}

    return train_batches(cache, prepare, stream)
