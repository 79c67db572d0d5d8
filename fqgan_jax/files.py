"""Small helpers for files that must be whole or absent."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fqgan_jax.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill, never sees half of it."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden file to fill, which takes the name `path` when the block is left, and is removed if the block fails."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def is_full_disk(error: BaseException) -> str:
    """Returns the message of a full disk, a quota or a file size limit in an error; "" if it is another error."""
    texts = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
    return next((text for text in texts if text in str(error)), "")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill, which takes the name `folder` when the block is left, and is removed if the block fails.

    Raises:
      UserError: the folder exists, or cannot be made.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: choose another --out, or remove it first.")
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
