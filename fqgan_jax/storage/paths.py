"""Paths of objects, with the methods of `pathlib.Path` that this package uses."""

import contextlib
import datetime
import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, NamedTuple, Self, TypeGuard, cast

import fsspec

from fqgan_jax.errors import UserError

PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds between attempts; the clients make several of their own in each
# Seconds that an attempt may take: the clients themselves may wait forever, for connections that broken ones hold.
SECONDS, SECONDS_OF_LISTING, SLOWEST = 120.0, 3600.0, 1e6  # and the slowest transfer, in bytes a second
PARALLEL = 8  # transfers of a folder at a time
_URL = re.compile(r"[a-z][a-z0-9+.\-]+://")
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}  # by protocol
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 64}},
}
# Answers, which another attempt would not change.
_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
# Where the clients' own errors are defined.
_CLIENTS = {"aiobotocore", "aiohttp", "asyncio", "botocore", "fsspec", "gcsfs", "google", "requests", "urllib3"}
_FORBIDDEN = ("Forbidden", "Credential", "AccessDenied", "Access Denied", "Anonymous caller", "Invalid bucket name")


def as_path(path: str | PurePath) -> Path:
    """Returns the path that a text names: an `ObjectPath` for a URL, and otherwise a `Path`.

    The result is declared as a `Path`, because everything that takes it uses only the methods that both have.
    """
    if isinstance(path, PurePath):
        return cast(Path, path)
    if path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    return cast(Path, ObjectPath(path)) if _URL.match(path) else Path(path)


def in_storage(path: PurePath) -> "TypeGuard[ObjectPath]":
    """Whether a path is an `ObjectPath`, though it may be declared as a `Path`."""
    return isinstance(path, ObjectPath)


class Stat(NamedTuple):
    """What is known of an object: its size, the time it was written, and a text that changes with its content."""

    st_size: int
    st_mtime_ns: int
    version: str


class ObjectPath(PurePosixPath):
    """A path in object storage, such as `s3://bucket/runs/x`.

    There are no folders: a folder exists while an object below it does. An object appears when all of it is there. What
    fails for a passing reason is tried again; `FileNotFoundError` is raised as for files.

    Raises (every method):
      UserError: the storage cannot be reached, refuses, or needs a client that is not installed.
    """

    __slots__ = ("_listed",)  # what a listing said of the object

    def __str__(self) -> str:
        # PurePosixPath keeps one of the two slashes.
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is no local file.")

    def _call(self, operation: str, *arguments: object, seconds: float = SECONDS, **options: object) -> Any:
        """Returns what a method of the file system returns for this path."""
        return self._run(operation, str(self), *arguments, seconds=seconds, **options)

    def _write(self, operation: str, *arguments: object, size: int, **options: object) -> None:
        """Calls a method of the file system that writes so many bytes."""
        try:
            self._run(operation, *arguments, seconds=SECONDS + size / SLOWEST, **options)
        except FileNotFoundError as error:
            raise self.bucket.missing() from error

    def _run(self, operation: str, *arguments: object, seconds: float, **options: object) -> Any:
        def attempt() -> Any:
            limit = {"timeout": seconds} if self._storage.async_impl else {}
            return getattr(self._storage, operation)(*arguments, **options, **limit)

        return self._persist(attempt)

    def _persist(self, attempt: Callable[[], Any]) -> Any:
        """Returns what an attempt returns, which is made again, after growing pauses, if it fails for a passing reason.

        Args:
          attempt: something that may be done more than once.

        Raises:
          UserError: the storage refuses, or every attempt failed.
          OSError: the storage answers that there is no such object, for example.
        """
        for pause in (*PAUSES, None):
            try:
                return attempt()
            except _ANSWERS:
                raise
            except Exception as error:
                if not _is_of_storage(error):
                    raise
                if _is_refusal(error):
                    raise UserError(f"{self} cannot be used ({_reason(error)}): {_remedy(str(self))}.") from error
                if pause is None:
                    raise UserError(
                        f"{self} cannot be reached ({_reason(error)}): try again when the storage answers."
                    ) from error
                type(self._storage).clear_instance_cache()  # the next attempt begins with new connections
                time.sleep(pause * random.uniform(0.5, 1.5))
        return None

    @property
    def protocol(self) -> str:
        """What stands before "://"."""
        return self.parts[0].removesuffix(":")

    @property
    def bucket(self) -> Self:
        """The path of the bucket."""
        return type(self)(*self.parts[:2])

    @property
    def parents(self) -> tuple[Self, ...]:
        """The paths above it, up to the bucket."""
        return tuple(path for path in super().parents if len(path.parts) > 1)

    @property
    def _storage(self) -> fsspec.AbstractFileSystem:
        # The instance is fsspec's own, one a process. Listings are not kept: other processes write, too.
        protocol = self.protocol
        try:
            return fsspec.filesystem(protocol, use_listings_cache=False, **_OPTIONS.get(protocol, {}))
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            remedy = f"pip install fqgan-jax[{extra}]" if extra else str(error)
            raise UserError(f"{self} needs a client that is not installed: {remedy}.") from error
        except ValueError as error:
            raise UserError(f"{self} is in no known storage ({error}): give gs://, s3:// or a folder.") from error

    def absolute(self) -> Self:
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether it is an object, or objects are below it."""
        return self._kind() != ""

    def is_file(self) -> bool:
        """Whether it is an object."""
        return hasattr(self, "_listed") or self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether objects are below it."""
        return self._kind() == "directory"

    def is_symlink(self) -> bool:
        """No object is a link."""
        return False

    def _kind(self) -> str:
        try:
            return self._call("info")["type"]
        except FileNotFoundError:
            return ""

    def stat(self) -> Stat:
        """Size and time of the object; without a request if it comes from `files`."""
        return getattr(self, "_listed", None) or _stat(self._call("info"))

    def iterdir(self) -> Iterator[Self]:
        """What is directly below it; raises `FileNotFoundError` if it does not exist."""
        names = {name.rstrip("/").rpartition("/")[2] for name in self._call("ls", detail=False)}
        return (self / name for name in sorted(names - {"", self.name}))

    def glob(self, pattern: str) -> Iterator[Self]:
        """What matches a pattern, as `Path.glob`, but without "**"."""
        first, _, rest = pattern.partition("/")
        try:
            found = [path for path in self.iterdir() if fnmatchcase(path.name, first)]
        except (FileNotFoundError, NotADirectoryError):
            return
        for path in found:
            if rest:
                yield from path.glob(rest)
            else:
                yield path

    def files(self) -> list[Self]:
        """All objects below it, at any depth, in order; one listing."""
        paths = []
        for name, info in sorted(self._call("find", detail=True, seconds=SECONDS_OF_LISTING).items()):
            paths.append((self.bucket / name.lstrip("/").partition("/")[2]).known(_stat(info)))
        return paths

    def known(self, stat: Stat) -> Self:
        """Itself, with what `stat` is to return without a request."""
        self._listed = stat
        return self

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Opens the object for reading by ranges."""
        return self._persist(lambda: self._storage.open(str(self), mode))

    def read_bytes(self) -> bytes:
        """Content of the object."""
        return self._call("cat_file")

    def read_range(self, start: int, stop: int) -> bytes:
        """A part of the content."""
        return self._call("cat_file", start=start, end=stop, seconds=SECONDS + (stop - start) / SLOWEST)

    def read_text(self) -> str:
        """Content of the object."""
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Writes the object."""
        self._write("pipe_file", str(self), content, size=len(content))

    def create(self, content: bytes) -> None:
        """Writes the object, and raises `FileExistsError` if there is one; not every storage looks."""
        self._write("pipe_file", str(self), content, size=len(content), mode="create")

    def write_text(self, content: str) -> None:
        """Writes the object."""
        self.write_bytes(content.encode())

    def upload(self, file: Path) -> None:
        """Writes the object from a local file."""
        self._write("put_file", str(file), str(self), size=file.stat().st_size)

    def check_bucket(self) -> None:
        """Raises `UserError` if the storage cannot be reached, refuses, or has no such bucket; changes nothing."""
        if not self.exists():
            try:
                self.bucket._call("ls", detail=False)
            except FileNotFoundError as error:
                raise self.bucket.missing() from error

    def missing(self) -> UserError:
        """The error of a bucket that does not exist."""
        return UserError(f"There is no bucket {self}: make it first, or choose another path.")

    def download(self, file: Path) -> None:
        """Writes the content to a local file."""
        self._call("get_file", str(file), seconds=SECONDS + self.stat().st_size / SLOWEST)

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002  (as in pathlib)
        """Removes the object."""
        try:
            self._call("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Removes all objects below it."""
        with contextlib.suppress(FileNotFoundError):
            self._call("rm", recursive=True)

    def mkdir(self, **_: object) -> None:
        """Does nothing: there are no folders."""

    def rmdir(self) -> None:
        """Does nothing: there are no folders."""


def _stat(info: dict) -> Stat:
    time = next((info[name] for name in ("LastModified", "mtime", "updated", "created") if info.get(name)), 0)
    if isinstance(time, str):
        time = datetime.datetime.fromisoformat(time)
    seconds = time.timestamp() if isinstance(time, datetime.datetime) else float(time)
    version = next((str(info[name]) for name in ("ETag", "etag", "generation", "md5Hash") if info.get(name)), str(time))
    return Stat(info["size"] or 0, int(seconds * 1e9), version)


def _is_of_storage(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return False  # of the local disk
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS


def _is_refusal(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}"
    return isinstance(error, PermissionError) or any(sign in text for sign in _FORBIDDEN)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _remedy(where: str) -> str:
    kind = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile", "gs": "gcloud auth"}
    login = kind.get(where.partition(":")[0], "the credentials of its client")
    return f"set credentials that may read and write it ({login}), or choose another path"
