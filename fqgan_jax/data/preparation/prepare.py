"""Writes a source as a folder of ArrayRecord shards, in parallel and resumable after a kill.

Which images go into which shard follows from the source's order alone; see `shards`.
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
from fqgan_jax.data.preparation.pool import Pool, Progress
from fqgan_jax.data.shards import ShardFolder, ShardSpec, record_writer, shard_specs
from fqgan_jax.data.sources import Source, described, open_source, relative_name, source_state
from fqgan_jax.data.sources.records import MANIFEST, Manifest, Record, Shard, encode_record
from fqgan_jax.data.sources.splits import EmptySplitError
from fqgan_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are stored.

    Attributes:
      shorter_side: larger images are scaled down to it and stored as JPEG; 0 keeps files as they are.
      quality: quality of that JPEG.
      images_per_shard: images in one file.
      validation_fraction: held-out part of a source that has no validation split.
    """

    shorter_side: int = 0
    quality: int = 95
    images_per_shard: int = 1024
    validation_fraction: float = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Preparation:
    """Inputs of all shards: sources by split, the folder, and how images are stored."""

    sources: dict[str, Source]
    folder: ShardFolder
    settings: Settings


def prepare(name: str, folder: Path, settings: Settings, *, pool: Pool, data_dir: str | None = None) -> Manifest:
    """Writes a source to a folder, or continues an earlier call that was stopped.

    Args:
      name: name of the source; see `open_source`.
      folder: folder for the shards and their manifest.
      settings: how images are stored.
      pool: threads or processes that do the work.
      data_dir: folder of prepared tensorflow-datasets; None uses their own default.

    Raises:
      UserError: the source, the folder or a file is unusable; finished shards stay valid.
    """
    sources = _open_splits(name, settings.validation_fraction, data_dir)
    specs = {split: shard_specs(split, len(source), settings.images_per_shard) for split, source in sources.items()}
    plan, shards = _plan_hash(sources, settings), ShardFolder(path=folder, manifest=MANIFEST, command="fqgan prepare")
    with shards.locked():
        shards.start(plan, dataclasses.asdict(settings))
        if shards.is_finished:
            return Manifest.read(folder)
        unfinished = [(split, spec) for split in specs for spec in specs[split] if shards.read_note(spec) is None]
        num_images = sum(map(len, sources.values()))
        pool.run(
            _write_shard,
            _Preparation(sources=sources, folder=shards, settings=settings),
            unfinished,
            title="prepare",
            num_images=num_images,
            num_done=num_images - sum(len(spec) for _, spec in unfinished),
        )
        class_names = tuple(sources["train"].class_names)
        splits = {
            split: tuple(Shard.from_json(shards.finished_note(spec)) for spec in split_specs)
            for split, split_specs in specs.items()
        }
        _check_readable(splits)
        manifest = Manifest(class_names=class_names, splits=splits, settings=dataclasses.asdict(settings), plan=plan)
        shards.finish(manifest.to_json())
    return manifest


def _open_splits(name: str, fraction: float, data_dir: str | None) -> dict[str, Source]:
    sources = {"train": open_source(name, "train", validation_fraction=fraction, data_dir=data_dir)}
    try:
        sources["validation"] = open_source(name, "validation", validation_fraction=fraction, data_dir=data_dir)
    except EmptySplitError:  # nothing is held out: the folder has one split
        return sources
    if sources["train"].class_names != sources["validation"].class_names:
        train_names, validation_names = (set(source.class_names) for source in sources.values())
        differing = ", ".join(sorted(train_names ^ validation_names)[:5])
        raise UserError(f"The training and the validation split of {name} have different classes ({differing}).")
    return sources


def _plan_hash(sources: dict[str, Source], settings: Settings) -> str:
    """Returns a hash of every name, label and setting; and after a dash, which earlier versions left out, of files."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings)).encode())
    for split, source in sources.items():
        digest.update(json.dumps([split, *source.class_names]).encode())
        for index in range(len(source)):
            digest.update(described(source, index))
    return "-".join([digest.hexdigest(), *(source_state(source, "files") for source in sources.values())])


def _check_readable(splits: dict[str, tuple[Shard, ...]]) -> None:
    if not any(shard.count for shards in splits.values() for shard in shards):
        reasons = [f"{name} ({reason})" for shard in splits["train"] for name, reason in shard.skipped.items()]
        raise UserError(f"Not one image can be read: {', '.join(reasons[:3])}.")


def _write_shard(preparation: _Preparation, item: tuple[str, ShardSpec], progress: Progress) -> None:
    split, spec = item
    write_records = partial(
        _write_records, preparation.sources[split], spec=spec, settings=preparation.settings, progress=progress
    )
    preparation.folder.write(spec, write_records)


def _write_records(source: Source, path: Path, *, spec: ShardSpec, settings: Settings, progress: Progress) -> dict:
    """Writes a file of records; returns the content of its note."""
    labels, skipped = [], {}
    with record_writer(path, "group_size:1,uncompressed") as write:
        for index in spec.indices:
            name = relative_name(source, index)
            try:
                image = stored_bytes(source.encoded(index), settings)
            except UnreadableImageError as error:
                skipped[name] = str(error)
            else:
                labels.append(source.label(index))
                write(encode_record(Record(labels[-1], name, image)))
            progress()
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    return {"count": len(labels), "labels": runs, "skipped": skipped}


def stored_bytes(content: bytes, settings: Settings) -> bytes:
    """Returns what is stored of an image file: its content, or a smaller JPEG.

    Raises:
      UnreadableImageError: it does not hold a whole image.
    """
    image = read_image(content)
    if not settings.shorter_side or min(image.size) <= settings.shorter_side:
        return content
    scale = settings.shorter_side / min(image.size)
    width, height = (max(settings.shorter_side, round(length * scale)) for length in image.size)
    buffer = io.BytesIO()
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    small.save(buffer, "JPEG", quality=settings.quality, subsampling=0, optimize=True)
    return buffer.getvalue()
