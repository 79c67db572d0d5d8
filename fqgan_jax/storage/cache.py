"""Local copies of what is read from object storage, in a folder of bounded size.

Parts of objects are kept by `cached_bytes`, whole files by `local_copies`; the size bounds each of the two. The folder
is `set_cache`'s, or `$FQGAN_CACHE/objects`. Processes that this one starts use the same.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from fqgan_jax.errors import UserError, check, import_extra
from fqgan_jax.storage.paths import PARALLEL, ObjectPath, Stat, in_storage

GIGABYTES = 20.0  # of copies, by default
_FOLDER, _GIGABYTES = "FQGAN_OBJECT_CACHE", "FQGAN_OBJECT_CACHE_GB"  # variables that carry the setting to workers
_LOCK = ".lock"


def set_cache(folder: str, gigabytes: float) -> None:
    """Sets the folder for copies, "" for the one that is set, and its largest size; 0 keeps no parts."""
    os.environ[_GIGABYTES] = str(gigabytes)
    if folder:
        os.environ[_FOLDER] = folder


def cached_bytes(path: ObjectPath, version: str, *, start: int = 0, stop: int) -> bytes:
    """Returns a part of an object, which is read once as long as the copy is kept; the least used parts leave first.

    Args:
      path: the object.
      version: what `path.stat()` says of it.
      start: of the part, in bytes.
      stop: its end.
    """
    return _kept(f"{path} {version} {start} {stop}", lambda: path.read_range(start, stop))


def cached_result(path: ObjectPath, what: str, compute: Callable[[], bytes]) -> bytes:
    """Returns what was computed from an object, which is computed again only when the object or the copy is gone.

    Args:
      path: the object.
      what: names the result.
      compute: reads the object.
    """
    found = path.stat()
    return _kept(f"{path} {found.version} {found.st_mtime_ns} {what}", compute)


def _kept(key: str, compute: Callable[[], bytes]) -> bytes:
    if not _gigabytes():
        return compute()
    parts = _parts(_folder(), _gigabytes(), os.getpid())
    content = parts.get(key)
    if content is None:
        content = compute()
        parts.set(key, content)
    return content


def local_copy(path: Path) -> Path:
    """Returns a local file with the content of an object, for libraries that read files; a local path is its own copy.

    Raises:
      FileNotFoundError: there is no such object.
      UserError: it does not fit into the cache.
    """
    return local_copies([path])[0] if in_storage(path) else path


def local_copies(paths: Sequence[ObjectPath]) -> list[Path]:
    """Returns local files with the contents of objects of one folder; they stay as long as this process.

    Raises:
      FileNotFoundError: one of the objects does not exist.
      UserError: they do not fit into the cache.
    """
    with ThreadPoolExecutor(PARALLEL) as threads:
        found = list(threads.map(ObjectPath.stat, paths))
        group = _held_group(paths[0].parent)
        copies = [group / _copy_name(path, stat) for path, stat in zip(paths, found, strict=True)]
        sizes = {copy: stat.st_size for copy, stat in zip(copies, found, strict=True)}
        missing = {copy: path for copy, path in zip(copies, paths, strict=True) if not copy.exists()}
        _make_room(group, wanted=sizes, title=str(paths[0].parent))
        list(threads.map(_download, missing.values(), missing.keys()))
    return copies


def _copy_name(path: ObjectPath, stat: Stat) -> str:
    version = hashlib.sha256(f"{stat.version} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    return f"{version}_{path.name}"


def _download(path: ObjectPath, copy: Path) -> None:
    partial = copy.with_name(f".{copy.name}.{os.getpid()}.partial")
    try:
        path.download(partial)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)


_held: dict[Path, IO] = {}  # locks of the groups that this process uses


def _held_group(folder: ObjectPath) -> Path:
    """The local folder for copies of files of one folder, which other processes do not remove from now on."""
    group = _folder() / "files" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    while group not in _held:
        group.mkdir(parents=True, exist_ok=True)
        lock = (group / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_SH)
        if (group / _LOCK).exists():  # another process may have removed it meanwhile
            _held[group] = lock
    os.utime(group / _LOCK)
    return group


def _make_room(group: Path, *, wanted: dict[Path, int], title: str) -> None:
    """Removes old versions of the wanted files, and then the groups that were used longest ago, until all fit."""
    names = {copy.name.partition("_")[2] for copy in wanted}
    for copy in group.iterdir():
        if copy not in wanted and copy.name.partition("_")[2] in names:
            copy.unlink(missing_ok=True)
    limit = int((_gigabytes() or GIGABYTES) * 1e9)
    groups = {each: _size(each) for each in group.parent.iterdir()}
    groups[group] = sum(wanted.values()) + _size(group, without=wanted)
    for each in sorted(groups, key=lambda each: (each / _LOCK).stat().st_mtime_ns if (each / _LOCK).exists() else 0):
        if sum(groups.values()) <= limit:
            break
        if each not in _held and _remove_group(each):
            del groups[each]
    check(
        sum(groups.values()) <= limit,
        f"The files of {title} ({groups[group] / 1e9:.2f} GB) do not fit into the cache {_folder()} of {limit / 1e9:g} "
        "GB beside others in use: make data.cache_gb larger, or mount the bucket as a folder.",
    )


def _size(group: Path, *, without: Collection[Path] = ()) -> int:
    size = 0
    for file in group.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another thread has just given it its name
            size += 0 if file in without else file.stat().st_size
    return size


def _remove_group(group: Path) -> bool:
    """Removes a group, unless a process uses it."""
    with (group / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(group, ignore_errors=True)
    return True


def _gigabytes() -> float:
    return float(os.environ.get(_GIGABYTES) or GIGABYTES)


def _folder() -> Path:
    """The folder for copies.

    Raises:
      UserError: there is no home folder.
    """
    if given := os.environ.get(_FOLDER):
        return Path(given).absolute()
    try:
        cache = os.environ.get("FQGAN_CACHE")
        return (Path(cache) if cache else Path.home() / ".cache" / "fqgan_jax").absolute() / "objects"
    except RuntimeError as error:
        raise UserError("There is no home folder for copies: set data.cache_dir to a folder.") from error


@functools.lru_cache(maxsize=2)
def _parts(folder: Path, gigabytes: float, process: int):
    """The cache of parts."""
    del process  # each opens its own
    # Parts of more than a few kilobytes are files.
    return import_extra("diskcache", "s3").Cache(
        str(folder / "parts"),
        size_limit=int(gigabytes * 1e9),
        eviction_policy="least-recently-used",
        disk_min_file_size=2**13,
    )
