"""A folder of ArrayRecord shards that comes out as if no kill had ever come in between.

What goes into which shard follows from the source's order alone. A shard is written under a hidden name; when it is
whole, a note with its checksum is written beside it and it takes its name. The manifest comes last.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fqgan_jax.errors import UserError
from fqgan_jax.files import write_atomically

PLAN = ".plan.json"
LOCK = ".lock"


class Part(NamedTuple):
    """A shard to write: the images `start` to `stop` of a source."""

    file: str
    start: int
    stop: int


def parts_of(prefix: str, count: int, images_per_shard: int) -> list[Part]:
    """The shards of so many images: "PREFIX-00000-of-00012.array_record" and so on."""
    shards = -(-count // images_per_shard)
    file = lambda i: f"{prefix}-{i:05d}-of-{shards:05d}.array_record"
    starts = [i * images_per_shard for i in range(shards)]
    return [Part(file(i), start, min(count, start + images_per_shard)) for i, start in enumerate(starts)]


def hash_of(*contents: object) -> str:
    """SHA-256 of what JSON can hold: the plan of a folder."""
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class ShardFolder:
    """The folder, while it is being written.

    Attributes:
      path: where it is.
      manifest: name of the file that comes last; it is JSON and holds the plan as "plan".
      command: that writes it, as users know it.
    """

    path: Path
    manifest: str
    command: str

    @contextmanager
    def locked(self, process: int = 0) -> Iterator[None]:
        """Makes the folder and keeps a second `process` of this number out; a killed one leaves no lock behind.

        Raises:
          UserError: another is writing, or the operating system refuses something within.
        """
        path = self.path / (f"{LOCK}-{process}" if process else LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with path.open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise UserError(
                        f"Another {self.command} is writing to {self.path}: wait for it, or stop it."
                    ) from error
                try:
                    yield
                finally:
                    path.unlink()
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            raise UserError(
                f"Writing {self.path} stopped: {error.strerror or error}{place}. The finished shards stay valid: "
                "remove the cause and run the same command again to go on."
            ) from error

    @property
    def is_finished(self) -> bool:
        """Whether the manifest is there."""
        return (self.path / self.manifest).exists()

    @property
    def has_traces(self) -> bool:
        """Whether something hidden is left of an unfinished run."""
        return (self.path / PLAN).exists()

    def check(self, plan: str) -> None:
        """Raises `UserError` where the folder holds something else than shards of this plan; changes nothing."""
        if not self.path.exists():
            return
        if self.is_finished or self.has_traces:
            path = self.path / (self.manifest if self.is_finished else PLAN)
            try:
                theirs = json.loads(path.read_text())["plan"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} cannot be read ({error!r}): remove the folder, and write it again.") from error
            if theirs != plan:
                raise UserError(
                    f"{self.path} was written from other images or with other settings than these: "
                    "choose another folder, or remove this one first."
                )
        elif found := sorted(path.name for path in self.path.iterdir() if not _is_hidden(path.name)):
            raise UserError(f"{self.path} holds other files ({', '.join(found[:3])}): choose an empty or a new folder.")

    def start(self, plan: str, settings: dict) -> None:
        """Makes the folder ready to take shards, or removes the last traces where it is finished.

        Raises:
          UserError: as `check`.
        """
        self.check(plan)
        if self.is_finished:
            self._remove_traces()
            return
        for partial in self.path.glob(".*.partial"):
            partial.unlink()
        write_atomically(self.path / PLAN, json.dumps({"plan": plan, "settings": settings}))

    def finished(self, part: Part) -> dict | None:
        """What the note of a whole shard says; None where it is yet to be written."""
        note, path = self._note(part), self.path / part.file
        if not note.exists():
            return None
        shard = json.loads(note.read_text())
        whole = not shard["count"] or (path.exists() and path.stat().st_size == shard["bytes"])
        return shard if whole else None

    def write(self, part: Part, write_records: Callable[[Path], dict]) -> None:
        """Writes one shard and its note; one without records leaves the note alone.

        `write_records` fills a file and returns what else the note shall say, the "count" of records at least.

        Raises:
          OSError: the shard cannot be written.
        """
        partial = self.path / f".{part.file}.partial"
        try:
            note = write_records(partial)
        except BaseException:
            partial.unlink(missing_ok=True)  # it may fill a disk
            raise
        size, digest = _checksum(partial) if note["count"] else (0, "")
        shard = {"file": part.file, "bytes": size, "sha256": digest} | note
        write_atomically(self._note(part), json.dumps(shard))
        if note["count"]:
            partial.rename(self.path / part.file)
        else:
            partial.unlink()

    def finish(self, content: str) -> None:
        """Writes the manifest and removes the notes."""
        write_atomically(self.path / self.manifest, content)
        self._remove_traces()

    def _note(self, part: Part) -> Path:
        return self.path / f".{part.file}.json"

    def _remove_traces(self) -> None:
        # The plan goes last: it says that there are others.
        hidden = [path for pattern in (".*.partial", ".*.json") for path in self.path.glob(pattern)]
        for path in sorted(hidden, key=lambda path: path.name == PLAN):
            path.unlink()


def _is_hidden(name: str) -> bool:
    return name.startswith(LOCK) or (name.startswith(".") and name.endswith(".partial"))


def _checksum(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file that is then on the disk for good."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return file.tell(), digest


@contextmanager
def record_writer(path: Path, options: str) -> Iterator[Callable[[bytes], None]]:
    """An ArrayRecord file: a function that writes a record to it.

    Raises:
      OSError: it cannot be written.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    with _refusals(path):
        writer = ArrayRecordWriter(str(path), options)

    def write(record: bytes) -> None:
        with _refusals(path):
            writer.write(record)

    yield write
    with _refusals(path):
        writer.close()


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of the writer: "write() failed: No space left on device; writing ..."
        raise OSError(errno.EIO, str(error).partition(";")[0].rpartition(": ")[2], str(path)) from error


def check_size(path: Path, size: int) -> None:
    """Raises `UserError` where a shard is missing or has another size than the manifest says."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found} bytes instead of {size}"
        raise UserError(f"{path} {state}: copy the folder again, or write it again from its source.")
