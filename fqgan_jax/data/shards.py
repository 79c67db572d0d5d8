"""A folder of ArrayRecord shards whose writing is resumable after a kill.

Which images go into which shard follows from the source's order alone. A shard is written under a hidden name. When it
is complete, a note with its checksum is written beside it, and it is renamed. The manifest is written last.
"""

import dataclasses
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fqgan_jax.config.rules import FileName, Whole, check_complete
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import lock_file, move_file, place_to_fill, read_json, write_atomically
from fqgan_jax.storage import as_path, in_storage, local_copies

PLAN = ".plan.json"
LOCK = ".lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """A shard to write: the images from `start` up to, but not including, `stop` of a source."""

    file: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def indices(self) -> range:
        """Indices of the images."""
        return range(self.start, self.stop)


def shard_specs(prefix: str, num_images: int, images_per_shard: int) -> list[ShardSpec]:
    """Divides images into shards "PREFIX-00000-of-00012.array_record" and so on."""
    starts = range(0, num_images, images_per_shard)
    return [
        ShardSpec(
            file=f"{prefix}-{i:05d}-of-{len(starts):05d}.array_record",
            start=start,
            stop=min(num_images, start + images_per_shard),
        )
        for i, start in enumerate(starts)
    ]


def plan_hash(*contents: object) -> str:
    """Returns the SHA-256 of JSON values that describe everything a folder's shards depend on."""
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardFolder:
    """A folder of shards while it is being written.

    Attributes:
      path: the folder.
      manifest: name of the file that is written last: JSON with the hash of the plan as "plan".
      command: the command that writes the folder ("fqgan prepare").
    """

    path: Path
    manifest: str
    command: str

    @contextmanager
    def locked(self, process: int = 0) -> Iterator[None]:
        """Creates the folder and locks it for the process of this number; the lock ends with the process.

        Raises:
          UserError: another process of this number is writing, or the operating system refuses an operation in the
            `with` block.
        """
        path = self.path / (f"{LOCK}-{process}" if process else LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with lock_file(path, refusal=f"Another {self.command} is writing to {self.path}: wait for it, or stop it."):
                yield
        except OSError as error:
            file = f" ({error.filename})" if error.filename else ""
            raise UserError(
                f"Writing {self.path} stopped: {error.strerror or error}{file}. The finished shards stay valid: "
                "remove the cause, then run the same command again to continue."
            ) from error

    @property
    def is_finished(self) -> bool:
        """Whether the manifest exists."""
        return (self.path / self.manifest).exists()

    @property
    def has_unfinished_shards(self) -> bool:
        """Whether hidden files of an unfinished run exist."""
        return (self.path / PLAN).exists()

    def check(self, plan: str) -> None:
        """Raises `UserError` if the folder holds anything but shards of this plan; changes nothing."""
        if not self.path.exists():
            return
        if self.is_finished or self.has_unfinished_shards:
            path = self.path / (self.manifest if self.is_finished else PLAN)
            found = str(read_json(path, remedy="remove the folder, and write it again").get("plan"))
            # Earlier versions wrote the part before the dash alone.
            if found != plan and ("-" in found or found != plan.partition("-")[0]):
                raise UserError(
                    f"{self.path} was written from other images or with other settings than these: "
                    "choose another folder, or remove this one first."
                )
        elif names := sorted(path.name for path in self.path.iterdir() if not _is_hidden(path.name)):
            raise UserError(f"{self.path} holds other files ({', '.join(names[:3])}): choose an empty or a new folder.")

    def start(self, plan: str, settings: dict) -> None:
        """Prepares the folder for writing shards; if it is finished, only removes hidden files.

        Raises:
          UserError: the folder holds something else (see `check`).
        """
        self.check(plan)
        if self.is_finished:
            self._remove_hidden_files()
            return
        for partial in self.path.glob(".*.partial"):
            partial.unlink()
        write_atomically(self.path / PLAN, json.dumps({"plan": plan, "settings": settings}))

    def finished_note(self, spec: ShardSpec) -> dict:
        """Returns the note of a shard that some host has written.

        Raises:
          UserError: the shard is not finished.
        """
        note = self.read_note(spec)
        if note is None:
            raise UserError(f"{self.path / spec.file} is missing: all hosts must write to one folder that they share.")
        return note

    def read_note(self, spec: ShardSpec) -> dict | None:
        """Returns the note of a finished shard, or None if the shard is not finished."""
        note, path = self._note_path(spec), self.path / spec.file
        if not note.exists():
            return None
        try:
            shard = read_json(note, remedy="remove it")
            check_shards([shard])
        except UserError:
            return None  # a damaged note: the shard is written again
        is_whole = not shard["count"] or (path.exists() and path.stat().st_size == shard["bytes"])
        return shard if is_whole else None

    def write(self, spec: ShardSpec, write_records: Callable[[Path], dict]) -> None:
        """Writes one shard and its note; a shard without records has a note, but no file.

        Args:
          spec: the shard.
          write_records: writes records to a file and returns the content of the note, which includes their "count".

        Raises:
          OSError: the shard cannot be written.
        """
        with place_to_fill(self.path) as folder:
            partial = folder / f".{spec.file}.partial"
            try:
                note = write_records(partial)
            except BaseException:
                partial.unlink(missing_ok=True)  # it may have filled the disk
                raise
            size, digest = _checksum(partial) if note["count"] else (0, "")
            shard = {"file": spec.file, "bytes": size, "sha256": digest} | note
            write_atomically(self._note_path(spec), json.dumps(shard))
            if note["count"]:
                move_file(partial, self.path / spec.file)
            else:
                partial.unlink()

    def finish(self, content: str) -> None:
        """Writes the manifest and removes the notes."""
        write_atomically(self.path / self.manifest, content)
        self._remove_hidden_files()

    def _note_path(self, spec: ShardSpec) -> Path:
        return self.path / f".{spec.file}.json"

    def _remove_hidden_files(self) -> None:
        # The plan is removed last: it marks the other hidden files.
        hidden = [path for pattern in (".*.partial", ".*.json") for path in self.path.glob(pattern)]
        for path in sorted(hidden, key=lambda path: path.name == PLAN):
            path.unlink()


def _is_hidden(name: str) -> bool:
    return name.startswith(LOCK) or (name.startswith(".") and name.endswith(".partial"))


def _checksum(path: Path) -> tuple[int, str]:
    """Returns size and SHA-256 of a file, after syncing it to disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return file.tell(), digest


@contextmanager
def record_writer(path: Path, options: str) -> Iterator[Callable[[bytes], None]]:
    """Opens an ArrayRecord file and yields a function that writes a record to it.

    Raises:
      OSError: the file cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    with _write_errors(path):
        writer = ArrayRecordWriter(str(path), options)

    def write(record: bytes) -> None:
        with _write_errors(path):
            writer.write(record)

    yield write
    with _write_errors(path):
        writer.close()


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # e.g. "write() failed: No space left on device; writing ..."
        raise OSError(errno.EIO, str(error).partition(";")[0].rpartition(": ")[2], str(path)) from error


_SHARD = {"file": FileName(), "count": Whole(), "bytes": Whole(0, 2**62)}


def check_shards(shards: object, where: str = "") -> None:
    """Raises `UserError` unless this is a list of shards, each with the name of a file, a count and a size.

    Args:
      shards: what a manifest says.
      where: the manifest, for the message: "codes.json: ".
    """
    if not isinstance(shards, list):
        raise UserError(f"{where}shards is no list: write the folder again.")
    for shard in shards:
        check_complete(shard, _SHARD, where=f"{where}shards: ", remedy="write the folder again")


def open_shards(folder: Path, shards: Mapping[str, tuple[int, int]]) -> Sequence[bytes]:
    """Opens records for random access.

    Args:
      folder: of the shards.
      shards: number of records and size in bytes of each file.

    Raises:
      UserError: a shard is missing or damaged, or has another size or number of records.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    files = [folder / file for file in shards]
    if in_storage(folder):  # one request instead of one for each
        listed = {path.name: as_path(path) for path in folder.files()}
        files = [listed.get(path.name, path) for path in files]
    for path, (_, size) in zip(files, shards.values(), strict=True):
        check_size(path, size)
    if in_storage(folder):  # the library reads local files alone
        files = local_copies([file for file in files if in_storage(file)])
    try:
        records = ArrayRecordDataSource([str(file) for file in files])
        found = len(records)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The shards of {folder} are damaged ({reason}): copy or write them again.") from error
    count = sum(count for count, _ in shards.values())
    check(found == count, f"The shards of {folder} hold {found} records, not {count}: copy or write them again.")
    return records


def check_size(path: Path, size: int) -> None:
    """Raises `UserError` if a shard is missing or does not have the size in the manifest."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found} bytes instead of {size}"
        raise UserError(f"{path} {state}: copy the folder again, or write it again from its source.")
