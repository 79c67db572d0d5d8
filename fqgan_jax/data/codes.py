"""The code cache: what the frozen tokenizer made of a dataset, as ArrayRecord files.

A record is one image: its label (int32) and its codes `[crops, h, w, K]`; the manifest holds sizes, class names and
the fingerprint of the tokenizer that wrote it.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np
from jaxtyping import Int

from fqgan_jax.data.loader import Batch, train_batches
from fqgan_jax.errors import UserError
from fqgan_jax.files import whole_folder, write_atomically

MANIFEST = "codes.json"
RECORDS = "codes.array_record"


@dataclasses.dataclass(frozen=True)
class CodesManifest:
    """Describes a code cache. `tokenizer` is the tokenizer's fingerprint, `crops` how many each image has."""

    tokenizer: str
    num_codebooks: int
    codebook_size: int
    grid: tuple[int, int]
    crops: int
    class_names: tuple[str, ...]
    count: int = 0

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<u2") if self.codebook_size <= 2**16 else np.dtype("<i4")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one record's codes."""
        return (self.crops, *self.grid, self.num_codebooks)


def write_codes(folder: Path, manifest: CodesManifest, records: Iterator[tuple[int, np.ndarray]]) -> CodesManifest:
    """Writes (label, codes) records; the folder appears whole at the end.

    Raises:
      UserError: the folder exists.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    with whole_folder(folder) as partial:
        writer = ArrayRecordWriter(str(partial / RECORDS), "group_size:1")
        count = 0
        for label, codes in records:
            writer.write(np.int32(label).tobytes() + np.ascontiguousarray(codes, manifest.dtype).tobytes())
            count += 1
        writer.close()
        if not count:
            raise UserError("No image could be tokenized: the code cache would be empty.")
        manifest = dataclasses.replace(manifest, count=count)
        write_atomically(partial / MANIFEST, json.dumps(dataclasses.asdict(manifest), indent=2))
    return manifest


class CodeCache:
    """Random access to a code cache."""

    def __init__(self, folder: Path):
        if not (folder / MANIFEST).is_file():
            raise UserError(f"{folder} holds no code cache: write one with fqgan tokenize --out {folder}.")
        fields = json.loads((folder / MANIFEST).read_text())
        tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        self.manifest = CodesManifest(**tuples)
        self._records = grain.sources.ArrayRecordDataSource([str(folder / RECORDS)])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[int, Int[np.ndarray, "crops h w K"]]:
        record = self._records[index]
        codes = np.frombuffer(record, self.manifest.dtype, offset=4).reshape(self.manifest.shape)
        return int(np.frombuffer(record, np.int32, 1)[0]), codes


def code_batches(
    cache: CodeCache, batch_size: int, seed: int, start_step: int, num_threads: int, process: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Training batches: "codes" int32 [B, h, w, K] of one crop of each image at random, "label" int32 [B]."""

    def prepare(element: tuple[int, np.ndarray], rng: np.random.Generator) -> Batch:
        label, codes = element
        return {"codes": codes[rng.integers(len(codes))].astype(np.int32), "label": np.int32(label)}

    return train_batches(cache, prepare, batch_size, seed, start_step, num_threads, process)
