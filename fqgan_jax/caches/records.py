"""What frozen networks make of the crops of every image, written as resumable shards in one pass.

Threads read and crop. Every device always gets the same crops of a shard together, however many devices there are, so
that the bytes do not depend on them. On several hosts each writes shards of its own; the first one the manifest.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jaxtyping import Int, PyTree, UInt8
from tqdm import tqdm

from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.shards import Part, ShardFolder, check_size, hash_of, parts_of, record_writer
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source, fingerprint, relative_name
from fqgan_jax.data.transforms import CropBox, crop_at, largest_side, numbered_crop_boxes
from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import make_mesh
from fqgan_jax.sharding.passes import Step, on_each_device, rows_of_batches

log = logging.getLogger(__name__)

IMAGES_PER_SHARD = 4096


class Crops(NamedTuple):
    """Crops of an image; `boxes` has no row where they are no random ones; `rows` is what was made of them so far."""

    images: UInt8[np.ndarray, "crops size size 3"]
    boxes: Int[np.ndarray, "crops 4"]
    rows: dict[str, np.ndarray]


class Example(NamedTuple):
    """An image of the source; without crops where it could not be read, for a reason."""

    index: int
    label: int
    crops: Crops | None
    reason: str = ""


class CachePass(NamedTuple):
    """What is computed and written.

    Attributes:
      source: of the images.
      read: crops of an image by its index; raises `UnreadableImageError`.
      crops: how many each image has.
      step: pure function of (frozen, {"image": crops}) to a dict of arrays with a row per crop.
      frozen: its parameters.
      encode: the record of an example with its rows, None for no record. Without crops there are no rows.
      settings: everything that records depend on, as JSON can hold it; the manifest begins with it.
    """

    source: Source
    read: Callable[[int], Crops]
    crops: int
    size: int
    step: Step
    frozen: PyTree
    encode: Callable[[Example, dict[str, np.ndarray]], bytes | None]
    settings: dict


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassSettings:
    """How the pass over a source is divided.

    Attributes:
      batch_size_per_device: crops in a batch on each device; at least those of one image.
      num_threads: threads that read images.
      images_per_shard: images in one file; work on an unfinished file is repeated after a stop.
    """

    batch_size_per_device: int = 64
    num_threads: int = 2
    images_per_shard: int = IMAGES_PER_SHARD


def random_crops(source: Source, size: int, count: int, seed: int, full_decode: bool, index: int) -> Crops:
    """Training crops of an image, each by a generator of (seed, index, number); the image is decoded once.

    Raises:
      UnreadableImageError: it does not hold a whole image.
    """
    image = source.read(index, None if full_decode else largest_side(size))
    boxes = numbered_crop_boxes(image.size, size, count=count, seed=seed, index=index)
    return Crops(np.stack([crop_at(image, size, box) for box in boxes]), np.array(boxes, np.int32), {})


def described(source: Source, name: str, split: str) -> dict:
    """How a manifest speaks of a source."""
    return {"source": name, "split": split, "images": len(source), "source_fingerprint": fingerprint(source)}


def write_cache(work: CachePass, folder: ShardFolder, settings: PassSettings) -> tuple[dict, Skipped]:
    """Writes the records of every image, or those that an earlier call left; returns manifest and skipped images.

    Raises:
      UserError: the folder is finished or of another plan, not one image can be read, or the system refuses.
    """
    source, process, count = work.source, jax.process_index(), jax.process_count()
    plan = hash_of(work.settings, settings.images_per_shard)
    parts = parts_of(folder.manifest.removesuffix(".json"), len(source), settings.images_per_shard)
    skipped = Skipped()
    with folder.locked(process):
        if folder.is_finished and not folder.has_traces:
            raise UserError(f"{folder.path} exists already and is complete: choose another --out, or remove it first.")
        folder.check(plan)
        sync_global_devices("cache checked")
        if process == 0:
            folder.start(plan, work.settings)
        sync_global_devices("cache started")
        if not folder.is_finished:
            mine = parts[process::count]
            left = [part for part in mine if folder.finished(part) is None]
            images = lambda of: sum(part.stop - part.start for part in of)
            title = folder.command.removeprefix("fqgan ")
            with tqdm(total=images(mine), initial=images(mine) - images(left), desc=title, unit="image") as progress:
                computed = _computed(work, left, settings)
                for part in left:
                    folder.write(part, partial(_write_records, work, part, computed, skipped, progress))
            sync_global_devices("shards written")
            if process == 0:
                folder.finish(json.dumps(_manifest(work, folder, parts, plan), indent=1))
            sync_global_devices("cache finished")
    manifest = json.loads((folder.path / folder.manifest).read_text())
    skipped.reasons |= manifest["skipped"]
    return manifest, skipped


def _computed(work: CachePass, parts: Sequence[Part], settings: PassSettings) -> Iterator[tuple[list[Example], PyTree]]:
    """Examples with their rows, some of a shard at a time and in order."""
    # This host's devices alone: hosts do not wait for each other.
    mesh = make_mesh({"data": -1, "fsdp": 1}, jax.local_devices())
    images = max(1, settings.batch_size_per_device // work.crops) * mesh.size
    examples = _examples(
        work, [index for part in parts for index in range(part.start, part.stop)], settings.num_threads
    )

    def batches() -> Iterator:
        for part in parts:
            for start in range(part.start, part.stop, images):
                group = list(islice(examples, min(images, part.stop - start)))
                pixels = np.zeros((images, work.crops, work.size, work.size, 3), np.uint8)
                for row, example in zip(pixels, group, strict=False):
                    if example.crops:
                        row[:] = example.crops.images
                yield {"image": pixels.reshape(-1, *pixels.shape[2:])}, group

    for rows, group in rows_of_batches(on_each_device(work.step, mesh), work.frozen, batches(), mesh=mesh):
        yield group, jax.tree.map(lambda leaf: leaf.reshape(images, work.crops, *leaf.shape[1:]), rows)


def _examples(work: CachePass, indices: Sequence[int], num_threads: int) -> Iterator[Example]:
    def example(index: int) -> Example:
        label = work.source.label(index)
        try:
            return Example(index, label, work.read(index))
        except UnreadableImageError as error:
            return Example(index, label, None, str(error))

    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    return iter(grain.MapDataset.source(indices).map(example).to_iter_dataset(options))


def _write_records(
    work: CachePass,
    part: Part,
    computed: Iterator[tuple[list[Example], PyTree]],
    skipped: Skipped,
    progress: tqdm,
    path: Path,
) -> dict:
    """Writes a file of a shard's records, the next ones of `computed`; returns what its note says."""
    count, left, reasons = 0, part.stop - part.start, {}
    with record_writer(path, "group_size:1,uncompressed") as write:
        while left:
            group, rows = next(computed)
            left -= len(group)
            for position, example in enumerate(group):
                if example.crops is None:
                    name = relative_name(work.source, example.index)
                    reasons[name] = example.reason
                    skipped.add(name, example.reason)
                    own = {}
                else:
                    own = example.crops.rows | {name: each[position] for name, each in rows.items()}
                record = work.encode(example, own)
                if record is not None:
                    write(record)
                    count += 1
            progress.update(len(group))
    return {"count": count, "skipped": reasons}


def _manifest(work: CachePass, folder: ShardFolder, parts: Sequence[Part], plan: str) -> dict:
    notes = [folder.finished(part) for part in parts]
    if None in notes:
        missing = parts[notes.index(None)].file
        raise UserError(f"{folder.path / missing} is missing: all hosts must write to one folder that they share.")
    skipped = {name: reason for note in notes for name, reason in note.pop("skipped").items()}
    if len(skipped) == len(work.source):
        reasons = [f"{name} ({reason})" for name, reason in list(skipped.items())[:3]]
        raise UserError(f"Not one image can be read: {', '.join(reasons)}.")
    sums = {"count": sum(note["count"] for note in notes), "bytes": sum(note["bytes"] for note in notes)}
    return work.settings | sums | {"skipped": skipped, "shards": notes, "plan": plan}


def read_manifest(folder: Path, name: str, what: str, command: str) -> dict:
    """The manifest of a cache, called `what` and written by a `command`.

    Raises:
      UserError: none there, or a damaged one.
    """
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder} holds no {what}: write one with {command} --out {folder}, or let it finish.")
    try:
        manifest = json.loads(path.read_text())
        if not isinstance(manifest["shards"], list):
            raise TypeError("shards is no list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): write it again with {command}.") from error
    return manifest


def open_records(folder: Path, manifest: dict) -> grain.sources.ArrayRecordDataSource:
    """Random access to a cache's records.

    Raises:
      UserError: a shard is missing or has another size than the manifest says.
    """
    shards = [shard for shard in manifest["shards"] if shard["count"]]
    for shard in shards:
        check_size(folder / shard["file"], shard["bytes"])
    return grain.sources.ArrayRecordDataSource([str(folder / shard["file"]) for shard in shards])


def decode_crop_boxes(record: bytes, offset: int, crops: int) -> list[CropBox]:
    """The boxes of random crops that a record holds."""
    return [CropBox(*map(int, row)) for row in np.frombuffer(record, "<i4", 4 * crops, offset).reshape(crops, 4)]
