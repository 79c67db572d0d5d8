"""A source becomes a folder of ArrayRecord shards, in parallel, and as if no kill had ever come in between.

Which image goes to which shard follows from the source's order alone; see `shards`.
"""

import dataclasses
import hashlib
import io
import json
from functools import partial
from itertools import groupby
from pathlib import Path

from PIL import Image

from fqgan_jax.data.images import UnreadableImageError, read_image
from fqgan_jax.data.preparation.pool import Pool
from fqgan_jax.data.shards import Part, ShardFolder, parts_of, record_writer
from fqgan_jax.data.sources import Source, open_source, relative_name
from fqgan_jax.data.sources.records import MANIFEST, Manifest, Record, Shard, encode_record
from fqgan_jax.data.sources.splits import EmptySplitError
from fqgan_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are stored.

    `shorter_side`: larger images are scaled down to it and stored as JPEG of `quality`; 0: files stay as they are.
    """

    shorter_side: int = 0
    quality: int = 95
    images_per_shard: int = 1024
    validation_fraction: float = 0.05


def prepare(name: str, folder: Path, settings: Settings, pool: Pool, data_dir: str | None = None) -> Manifest:
    """Writes the source `name` (what `open_source` takes) into a folder, or goes on where an earlier call stopped.

    Raises:
      UserError: the source, the folder or a file is not as it must be; what was finished stays valid.
    """
    sources = _open_splits(name, settings.validation_fraction, data_dir)
    size = settings.images_per_shard
    parts = {split: parts_of(split, len(source), size) for split, source in sources.items()}
    plan, shards = _plan_hash(sources, settings), ShardFolder(folder, MANIFEST, "fqgan prepare")
    with shards.locked():
        shards.start(plan, dataclasses.asdict(settings))
        if shards.is_finished:
            return Manifest.read(folder)
        left = [(split, part) for split in parts for part in parts[split] if shards.finished(part) is None]
        total = sum(map(len, sources.values()))
        done = total - sum(part.stop - part.start for _, part in left)
        tasks = [(split, part, shards, settings) for split, part in left]
        pool.run(write_shard, sources, tasks, "prepare", total, done)
        manifest = _manifest(shards, parts, tuple(sources["train"].class_names), settings, plan)
        shards.finish(manifest.to_json())
    return manifest


def _open_splits(name: str, fraction: float, data_dir: str | None) -> dict[str, Source]:
    sources = {"train": open_source(name, "train", validation_fraction=fraction, data_dir=data_dir)}
    try:
        sources["validation"] = open_source(name, "validation", validation_fraction=fraction, data_dir=data_dir)
    except EmptySplitError:  # nothing is kept aside: the folder has one split
        return sources
    if sources["train"].class_names != sources["validation"].class_names:
        theirs = [set(source.class_names) for source in sources.values()]
        differing = ", ".join(sorted(theirs[0] ^ theirs[1])[:5])
        raise UserError(f"The training and the validation split of {name} have different classes ({differing}).")
    return sources


def _plan_hash(sources: dict[str, Source], settings: Settings) -> str:
    """A hash of every name, label and setting."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings)).encode())
    for split, source in sources.items():
        digest.update(json.dumps([split, *source.class_names]).encode())
        for index in range(len(source)):
            line = f"{relative_name(source, index)}\0{source.label(index)}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _manifest(
    folder: ShardFolder, parts: dict[str, list[Part]], class_names: tuple[str, ...], settings: Settings, plan: str
) -> Manifest:
    splits = {split: tuple(Shard.from_json(folder.finished(part)) for part in of) for split, of in parts.items()}
    if not any(shard.count for shards in splits.values() for shard in shards):
        reasons = [f"{name} ({reason})" for shard in splits["train"] for name, reason in shard.skipped.items()]
        raise UserError(f"Not one image can be read: {', '.join(reasons[:3])}.")
    return Manifest(class_names=class_names, splits=splits, settings=dataclasses.asdict(settings), plan=plan)


def write_shard(
    sources: dict[str, Source], split: str, part: Part, folder: ShardFolder, settings: Settings, tick
) -> None:
    """Writes one shard and its note; `tick` is called after every image and may stop the work by an exception.

    Raises:
      OSError: a file of the source cannot be opened, or the shard not be written.
    """
    folder.write(part, partial(_write_records, sources[split], part, settings, tick))


def _write_records(source: Source, part: Part, settings: Settings, tick, path: Path) -> dict:
    """Writes a file of records; returns what its note says."""
    labels, skipped = [], {}
    with record_writer(path, "group_size:1,uncompressed") as write:
        for index in range(part.start, part.stop):
            name = relative_name(source, index)
            try:
                image = stored(source.encoded(index), settings)
            except UnreadableImageError as error:
                skipped[name] = str(error)
            else:
                labels.append(source.label(index))
                write(encode_record(Record(labels[-1], name, image)))
            tick()
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    return {"count": len(labels), "labels": runs, "skipped": skipped}


def stored(content: bytes, settings: Settings) -> bytes:
    """What is kept of an image file: itself, or a smaller JPEG.

    Raises:
      UnreadableImageError: it does not hold a whole image.
    """
    image = read_image(content)
    if not settings.shorter_side or min(image.size) <= settings.shorter_side:
        return content
    scale = settings.shorter_side / min(image.size)
    size = tuple(max(settings.shorter_side, round(length * scale)) for length in image.size)
    buffer = io.BytesIO()
    small = image.resize(size, Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=settings.quality, subsampling=0, optimize=True)
    return buffer.getvalue()
