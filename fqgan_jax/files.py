"""Small helpers for files: whole or absent, read without hanging, written by one process at a time.

All take paths in object storage too (`fqgan_jax.storage`), where a file is filled on the local disk and then uploaded.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fqgan_jax.errors import UserError
from fqgan_jax.storage import PARALLEL, ObjectPath, in_storage, is_leased, lease


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill, never sees half of it."""
    content = content.encode() if isinstance(content, str) else content
    if in_storage(path):
        path.write_bytes(content)
        return
    with whole_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden file to fill, which takes the name `path` when the block is left, and is removed if the block fails.

    Nobody can guess its name, so that no link that lies there leads the writing elsewhere.
    """
    if in_storage(path):
        with tempfile.TemporaryDirectory(prefix="fqgan_") as folder:
            yield Path(folder, path.name)
            path.upload(Path(folder, path.name))
        return
    partial = path.with_name(f".{path.name[:150]}.{secrets.token_hex(8)}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular_file(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
      OSError: it cannot be read, or is a pipe or a device, which might never end.
    """
    if in_storage(path):
        return path.read_bytes()
    # Opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        return file.read()


def read_json(path: Path, *, remedy: str) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
      path: the file.
      remedy: what to do if it is damaged, for the message: "restore it".

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(read_regular_file(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no JSON: {error}"
        raise UserError(f"{path} cannot be read ({reason}): {remedy}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: {remedy}.")
    return content


@contextmanager
def lock_file(path: Path, *, refusal: str) -> Iterator[None]:
    """Holds a lock while the block runs; it ends with the process, however that ends.

    In object storage it is a lease, which ends some time after the process.

    Raises:
      UserError: `refusal`: another process holds it.
      OSError: the file cannot be made.
    """
    if in_storage(path):
        with lease(path, refusal=refusal):
            yield
        return
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with open(descriptor, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(refusal) from error
            # Another process may have removed the file between the two lines above: its lock would exclude nobody.
            if not _is_at(descriptor, path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def is_locked(path: Path) -> bool:
    """Returns whether a process holds a lock by `lock_file`."""
    if in_storage(path):
        return is_leased(path)
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_full_disk(error: BaseException) -> str:
    """Returns the message of a full disk, a quota or a file size limit in an error; "" if it is another error."""
    texts = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    return next((text for text in texts if text in str(error)), "")


def check_writable(path: Path) -> None:
    """Raises `UserError` if a file or folder of this name cannot be written; changes nothing."""
    if in_storage(path):
        path.check_bucket()
        return
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{path} cannot be written: change its permissions, or choose another path.")
    if path.is_dir():
        return
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UserError(f"{path} cannot be written, because {parent} is no folder: choose another path.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written, because {parent} is read-only: choose another path.")


@contextmanager
def place_to_fill(folder: Path) -> Iterator[Path]:
    """Where files of a folder can be filled before `move_file` puts them there: itself, or a local one for a while."""
    if in_storage(folder):
        with tempfile.TemporaryDirectory(prefix="fqgan_") as local:
            yield Path(local)
    else:
        yield folder


def move_file(file: Path, path: Path) -> None:
    """Gives a local file another name; in object storage it appears when all of it is there."""
    if in_storage(path):
        path.upload(file)
        file.unlink()
    else:
        file.rename(path)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill, which takes the name `folder` when the block is left, and is removed if the block fails.

    Raises:
      UserError: the folder exists, or cannot be made.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: choose another --out, or remove it first.")
    if in_storage(folder):
        with tempfile.TemporaryDirectory(prefix="fqgan_") as filled:
            yield Path(filled)
            upload_folder(Path(filled), folder)
        return
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be made: {error.strerror}. Choose another --out.") from error
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial)
        raise
    for path in filter(Path.is_file, partial.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    partial.rename(folder)


def upload_folder(folder: Path, target: ObjectPath, *, last: str = "") -> None:
    """Uploads the files of a folder; the last one, or the one that was written last, says that all are there."""
    paths = sorted(filter(Path.is_file, folder.rglob("*")), key=lambda path: path.stat().st_mtime_ns)
    paths.sort(key=lambda path: path == folder / last)
    objects = [target / path.relative_to(folder).as_posix() for path in paths]
    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(ObjectPath.upload, objects[:-1], paths[:-1]))
    for path, uploaded in zip(paths[-1:], objects[-1:], strict=True):
        uploaded.upload(path)
