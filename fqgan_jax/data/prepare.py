"""A source becomes a folder of ArrayRecord shards, in parallel, and as if no kill had ever come in between.

Which image goes to which shard follows from the source's order alone. A shard is written under a hidden name; when it
is whole, a note with its checksum is written beside it and it takes its name. The manifest comes last.
"""

import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from PIL import Image

from fqgan_jax.data.images import UnreadableImage, read_image
from fqgan_jax.data.pool import Pool
from fqgan_jax.data.records import MANIFEST, Manifest, Record, Shard, encode_record
from fqgan_jax.data.sources import Source, open_source
from fqgan_jax.data.splits import EmptySplit
from fqgan_jax.errors import UserError
from fqgan_jax.files import write_atomically

PLAN = ".plan.json"
LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are stored.

    `shorter_side`: larger images are scaled down to it and stored as JPEG of `quality`; 0: files stay as they are.
    """

    shorter_side: int = 0
    quality: int = 95
    images_per_shard: int = 1024
    validation_fraction: float = 0.05


@dataclasses.dataclass(frozen=True)
class Part:
    """A shard to write: images `start` to `stop` of a split."""

    split: str
    file: str
    start: int
    stop: int


def prepare(name: str, folder: Path, settings: Settings, pool: Pool, data_dir: str | None = None) -> Manifest:
    """Writes the source `name` (what `open_source` takes) into a folder, or goes on where an earlier call stopped.

    Raises:
      UserError: the source, the folder or a file is not as it must be; what was finished stays valid.
    """
    sources = _open_splits(name, settings.validation_fraction, data_dir)
    parts = [part for split, source in sources.items() for part in _parts(split, len(source), settings)]
    plan = _plan_hash(sources, settings)
    with _writable(folder, name), _locked(folder):
        if not _starts(folder, plan, settings):
            return Manifest.read(folder)
        left = [part for part in parts if _finished(folder, part) is None]
        done = sum(part.stop - part.start for part in parts) - sum(part.stop - part.start for part in left)
        tasks = [(part, folder, settings) for part in left]
        pool.run(write_shard, sources, tasks, "prepare", sum(map(len, sources.values())), done)
        manifest = _manifest(folder, sources, parts, settings, plan)
        write_atomically(folder / MANIFEST, manifest.to_json())
        _remove_notes(folder)
    return manifest


def _open_splits(name: str, fraction: float, data_dir: str | None) -> dict[str, Source]:
    sources = {"train": open_source(name, "train", fraction, data_dir)}
    try:
        sources["validation"] = open_source(name, "validation", fraction, data_dir)
    except EmptySplit:  # nothing is kept aside: the folder has one split
        return sources
    if sources["train"].class_names != sources["validation"].class_names:
        theirs = [set(source.class_names) for source in sources.values()]
        differing = ", ".join(sorted(theirs[0] ^ theirs[1])[:5])
        raise UserError(f"The training and the validation split of {name} have different classes ({differing}).")
    return sources


def _parts(split: str, count: int, settings: Settings) -> list[Part]:
    size = settings.images_per_shard
    shards = -(-count // size)
    file = lambda i: f"{split}-{i:05d}-of-{shards:05d}.array_record"
    return [Part(split, file(i), i * size, min(count, (i + 1) * size)) for i in range(shards)]


def record_name(source: Source, index: int) -> str:
    """The name that a record keeps: that of the source without the place where it happens to lie."""
    return source.name(index).removeprefix(source.root).lstrip("/")


def _plan_hash(sources: dict[str, Source], settings: Settings) -> str:
    """A hash of every name, label and setting."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings)).encode())
    for split, source in sources.items():
        digest.update(json.dumps([split, *source.class_names]).encode())
        for index in range(len(source)):
            line = f"{record_name(source, index)}\0{source.label(index)}\n"
            digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


@contextmanager
def _writable(folder: Path, name: str) -> Iterator[None]:
    """Turns the operating system's refusals into sentences."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"Preparing {name} in {folder} stopped: {error.strerror or error}{place}. The finished shards stay valid: "
            "remove the cause and run the same command again to go on."
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of the folder; a killed one leaves no lock behind."""
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another fqgan prepare is writing to {folder}: wait for it, or stop it.") from error
        try:
            yield
        finally:
            (folder / LOCK).unlink()


def _starts(folder: Path, plan: str, settings: Settings) -> bool:
    """Makes the folder ready to write; False where it is finished already.

    Raises:
      UserError: it holds something else.
    """
    other = (
        f"{folder} was prepared from other images or with other settings than these: choose another folder, "
        "or remove this one first."
    )
    if (folder / MANIFEST).exists():
        if Manifest.read(folder).plan != plan:
            raise UserError(other)
        _remove_notes(folder)
        return False
    if (folder / PLAN).exists():
        if json.loads((folder / PLAN).read_text())["plan"] != plan:
            raise UserError(other)
    elif found := sorted(path.name for path in folder.iterdir() if not _is_hidden_trace(path.name)):
        raise UserError(f"{folder} holds other files ({', '.join(found[:3])}): choose an empty or a new folder.")
    for partial in folder.glob(".*.partial"):
        partial.unlink()
    write_atomically(folder / PLAN, json.dumps({"plan": plan, "settings": dataclasses.asdict(settings)}))
    return True


def _is_hidden_trace(name: str) -> bool:
    return name == LOCK or (name.startswith(".") and name.endswith(".partial"))


def _note(folder: Path, file: str) -> Path:
    return folder / f".{file}.json"


def _finished(folder: Path, part: Part) -> Shard | None:
    """What the note of a whole shard says; None where it is yet to be written."""
    note, path = _note(folder, part.file), folder / part.file
    if not note.exists():
        return None
    shard = Shard.from_json(json.loads(note.read_text()))
    whole = not shard.count or (path.exists() and path.stat().st_size == shard.bytes)
    return shard if whole else None


def _remove_notes(folder: Path) -> None:
    for pattern in (".*.json", ".*.partial"):
        for path in folder.glob(pattern):
            path.unlink()


def _manifest(folder: Path, sources: dict[str, Source], parts: list[Part], settings: Settings, plan: str) -> Manifest:
    splits = {split: tuple(_finished(folder, part) for part in parts if part.split == split) for split in sources}
    if not any(shard.count for shards in splits.values() for shard in shards):
        reasons = [f"{name} ({reason})" for shard in splits["train"] for name, reason in shard.skipped.items()]
        raise UserError(f"Not one image can be read: {', '.join(reasons[:3])}.")
    return Manifest(tuple(sources["train"].class_names), splits, dataclasses.asdict(settings), plan)


def write_shard(sources: dict[str, Source], part: Part, folder: Path, settings: Settings, tick) -> None:
    """Writes one shard and its note; `tick` is called after every image and may stop the work by an exception.

    Raises:
      OSError: a file of the source cannot be opened, or the shard not be written.
    """
    partial = folder / f".{part.file}.partial"
    try:
        labels, skipped = _write_records(sources[part.split], part, partial, settings, tick)
    except BaseException:
        partial.unlink(missing_ok=True)  # it may fill a disk
        raise
    runs = tuple((label, len(list(run))) for label, run in groupby(labels))
    size, digest = _checksum(partial) if labels else (0, "")
    shard = Shard(part.file, len(labels), size, digest, runs, skipped)
    write_atomically(_note(folder, part.file), json.dumps(dataclasses.asdict(shard)))
    if labels:
        partial.rename(folder / part.file)
    else:
        partial.unlink()


def _write_records(
    source: Source, part: Part, path: Path, settings: Settings, tick
) -> tuple[list[int], dict[str, str]]:
    """Writes a file of records; returns their labels, and the images that were skipped with the reasons."""
    from array_record.python.array_record_module import ArrayRecordWriter

    labels, skipped = [], {}
    try:
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for index in range(part.start, part.stop):
            name = record_name(source, index)
            try:
                image = stored(source.encoded(index), settings)
            except UnreadableImage as error:
                skipped[name] = str(error)
            else:
                labels.append(source.label(index))
                writer.write(encode_record(Record(labels[-1], name, image)))
            tick()
        writer.close()
    except RuntimeError as error:  # of the writer: "write() failed: No space left on device; writing ..."
        raise OSError(errno.EIO, str(error).partition(";")[0].rpartition(": ")[2], str(path)) from error
    return labels, skipped


def _checksum(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file that is then on the disk for good."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return file.tell(), digest


def stored(content: bytes, settings: Settings) -> bytes:
    """What is kept of an image file: itself, or a smaller JPEG.

    Raises:
      UnreadableImage: it does not hold a whole image.
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
