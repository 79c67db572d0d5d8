"""One pass over a source that writes the outputs of frozen networks for every image's crops as resumable shards.

Threads read and crop. Every device always gets the same crops of a shard together, however many devices there are, so
the bytes do not depend on their number. On several hosts each host writes shards of its own, and the first one writes
the manifest.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import grain
import jax
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jaxtyping import PyTree
from tqdm import tqdm

from fqgan_jax.caches.records import Crops, Example
from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.shards import ShardFolder, ShardSpec, plan_hash, record_writer, shard_specs
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source, fingerprint, relative_name
from fqgan_jax.data.transforms import Size, crop_at, height_and_width, largest_side, needed_side, numbered_crop_boxes
from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import make_mesh
from fqgan_jax.sharding.passes import Step, on_each_device, rows_of_batches

IMAGES_PER_SHARD = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class CachePass:
    """The computation of a pass and the records that it writes.

    Attributes:
      source: the images.
      read: returns the crops of an image by its index; raises `UnreadableImageError`.
      num_crops: crops of each image.
      image_size: of the crops, a side or (height, width).
      step: pure function of (params, {"image": crops}) to a dict of arrays with a row per crop.
      params: parameters of the frozen networks.
      encode: returns the record of an example with its rows, or None for no record. An example without crops has no
        rows.
      recorded: everything on which records depend, as JSON; the manifest begins with it.
    """

    source: Source
    read: Callable[[int], Crops]
    num_crops: int
    image_size: Size
    step: Step
    params: PyTree
    encode: Callable[[Example, dict[str, np.ndarray]], bytes | None]
    recorded: dict


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassSettings:
    """How a pass over a source is divided.

    Attributes:
      batch_size_per_device: crops in a batch on each device; at least those of one image.
      num_threads: threads that read images.
      images_per_shard: images in one file; work on an unfinished file is repeated after a stop.
    """

    batch_size_per_device: int = 64
    num_threads: int = 2
    images_per_shard: int = IMAGES_PER_SHARD


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomCrops:
    """Reads training crops of an image, each from (seed, index, number) alone; the image is decoded once.

    Attributes:
      source: the images.
      image_size: of the crops, a side or (height, width).
      num_crops: crops of each image.
      seed: seed of the crops' positions.
      full_decode: decode JPEG files at full scale even if less would do.
    """

    source: Source
    image_size: Size
    num_crops: int
    seed: int
    full_decode: bool = False

    def __call__(self, index: int) -> Crops:
        """Returns the crops of an image.

        Raises:
          UnreadableImageError: it does not hold a whole image.
        """
        size = self.image_size
        image = self.source.read(index, None if self.full_decode else needed_side(size, largest_side(size)))
        boxes = numbered_crop_boxes(image.size, size, count=self.num_crops, seed=self.seed, index=index)
        return Crops(np.stack([crop_at(image, size, box) for box in boxes]), np.array(boxes, np.int32), {})


def describe_source(source: Source, name: str, split: str) -> dict:
    """Returns what a manifest records of a source."""
    return {"source": name, "split": split, "images": len(source), "source_fingerprint": fingerprint(source)}


def write_cache(work: CachePass, folder: ShardFolder, settings: PassSettings) -> tuple[dict, Skipped]:
    """Writes the records of every image, or those that an earlier call did not finish.

    Returns:
      The manifest and the skipped images.

    Raises:
      UserError: the folder is complete or was written from other images or settings, no image can be read, or the
        operating system refuses to write.
    """
    is_first = jax.process_index() == 0
    plan = plan_hash(work.recorded, settings.images_per_shard)
    prefix = folder.manifest.removesuffix(".json")
    specs = shard_specs(prefix, len(work.source), settings.images_per_shard)
    skipped = Skipped()
    with folder.locked(jax.process_index()):
        if folder.is_finished and not folder.has_unfinished_shards:
            raise UserError(f"{folder.path} exists already and is complete: choose another --out, or remove it first.")
        folder.check(plan)
        sync_global_devices("cache checked")
        if is_first:
            folder.start(plan, work.recorded)
        sync_global_devices("cache started")
        if not folder.is_finished:
            own_specs = specs[jax.process_index() :: jax.process_count()]
            _write_shards(work, folder, own_specs, settings=settings, skipped=skipped)
            sync_global_devices("shards written")
            if is_first:
                folder.finish(json.dumps(_manifest(work, folder, specs, plan=plan), indent=1))
            sync_global_devices("cache finished")
    manifest = json.loads((folder.path / folder.manifest).read_text())
    skipped.reasons |= manifest["skipped"]
    return manifest, skipped


def _write_shards(
    work: CachePass,
    folder: ShardFolder,
    specs: Sequence[ShardSpec],
    *,
    settings: PassSettings,
    skipped: Skipped,
) -> None:
    """Writes this host's shards that are not finished."""
    unfinished = [spec for spec in specs if folder.read_note(spec) is None]
    total, num_left = sum(map(len, specs)), sum(map(len, unfinished))
    title = folder.command.removeprefix("fqgan ")
    with tqdm(total=total, initial=total - num_left, desc=title, unit="image") as progress:
        groups = _computed_groups(work, unfinished, settings)
        for spec in unfinished:
            write_records = partial(_write_records, work, spec=spec, groups=groups, skipped=skipped, progress=progress)
            folder.write(spec, write_records)


def _computed_groups(
    work: CachePass, specs: Sequence[ShardSpec], settings: PassSettings
) -> Iterator[tuple[list[Example], PyTree]]:
    """Yields examples with their rows, some of a shard at a time and in order."""
    # This host's devices alone: hosts do not wait for each other.
    mesh = make_mesh({"data": -1, "fsdp": 1}, jax.local_devices())
    num_images = max(1, settings.batch_size_per_device // work.num_crops) * mesh.size
    examples = _read_examples(work, [index for spec in specs for index in spec.indices], settings.num_threads)

    def batches() -> Iterator:
        for spec in specs:
            for start in range(spec.start, spec.stop, num_images):
                group = list(islice(examples, min(num_images, spec.stop - start)))
                pixels = np.zeros((num_images, work.num_crops, *height_and_width(work.image_size), 3), np.uint8)
                for row, example in zip(pixels, group, strict=False):
                    if example.crops:
                        row[:] = example.crops.images
                yield {"image": pixels.reshape(-1, *pixels.shape[2:])}, group

    for rows, group in rows_of_batches(on_each_device(work.step, mesh), work.params, batches(), mesh=mesh):
        yield group, jax.tree.map(lambda leaf: leaf.reshape(num_images, work.num_crops, *leaf.shape[1:]), rows)


def _read_examples(work: CachePass, indices: Sequence[int], num_threads: int) -> Iterator[Example]:
    def read(index: int) -> Example:
        label = work.source.label(index)
        try:
            return Example(index, label, work.read(index))
        except UnreadableImageError as error:
            return Example(index, label, None, str(error))

    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    return iter(grain.MapDataset.source(indices).map(read).to_iter_dataset(options))


def _write_records(
    work: CachePass,
    path: Path,
    *,
    spec: ShardSpec,
    groups: Iterator[tuple[list[Example], PyTree]],
    skipped: Skipped,
    progress: tqdm,
) -> dict:
    """Writes a shard's records, the next ones of `groups`, to a file; returns the content of its note."""
    count, num_left, reasons = 0, len(spec), {}
    with record_writer(path, "group_size:1,uncompressed") as write:
        while num_left:
            group, rows = next(groups)
            num_left -= len(group)
            for position, example in enumerate(group):
                example_rows = {}
                if example.crops is None:
                    name = relative_name(work.source, example.index)
                    reasons[name] = example.reason
                    skipped.add(name, example.reason)
                else:
                    example_rows = example.crops.rows | {key: values[position] for key, values in rows.items()}
                record = work.encode(example, example_rows)
                if record is not None:
                    write(record)
                    count += 1
            progress.update(len(group))
    return {"count": count, "skipped": reasons}


def _manifest(work: CachePass, folder: ShardFolder, specs: Sequence[ShardSpec], *, plan: str) -> dict:
    notes = [folder.finished_note(spec) for spec in specs]
    skipped = {name: reason for note in notes for name, reason in note.pop("skipped").items()}
    if len(skipped) == len(work.source):
        reasons = [f"{name} ({reason})" for name, reason in list(skipped.items())[:3]]
        raise UserError(f"Not one image can be read: {', '.join(reasons)}.")
    sums = {"count": sum(note["count"] for note in notes), "bytes": sum(note["bytes"] for note in notes)}
    return work.recorded | sums | {"skipped": skipped, "shards": notes, "plan": plan}
