"""SHA-256 of every file of a checkpoint: finds missing, truncated and changed files before anything is restored."""

import json
from collections.abc import Collection
from pathlib import Path

from fqgan_jax.checkpoints.layout import CHECKSUMS, Item
from fqgan_jax.files import sha256_of, write_atomically


def write_checksums(folder: Path) -> None:
    """Writes `checksums.json` into the folder of a checkpoint whose items are complete."""
    files = sorted(path for path in folder.rglob("*/*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_atomically(folder / CHECKSUMS, json.dumps(sums, indent=1))


def find_damage(folder: Path, *, items: Collection[Item] = tuple(Item)) -> str | None:
    """Returns what is wrong with the first damaged file of a checkpoint, or None if every file is intact.

    Args:
      folder: the checkpoint, `WORKDIR/checkpoints/STEP`.
      items: the items that are checked.
    """
    try:
        sums = json.loads((folder / CHECKSUMS).read_bytes())
    except FileNotFoundError:
        return _missing_item(folder)
    except (OSError, ValueError, RecursionError):
        return f"{CHECKSUMS} cannot be read"
    if not isinstance(sums, dict) or not sums:
        return f"{CHECKSUMS} names no files"
    for name, expected in sums.items():
        if name.partition("/")[0] not in items:
            continue
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_of(folder / name) != expected:
            return f"{name} is not what was written"
    return None


def _missing_item(folder: Path) -> str | None:
    """The check of a checkpoint without checksums, which earlier versions wrote."""
    for item in (Item.PARAMS, Item.REST):
        if not (folder / item / "_METADATA").is_file():
            return f"{item} has no files"
    return None
