"""SHA-256 of every file of a checkpoint: finds what is missing, cut off or changed, before anything is restored."""

import hashlib
import json
from pathlib import Path

from fqgan_jax.files import write_atomically

CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Writes `checksums.json` into the folder of a checkpoint whose items (subfolders) are complete."""
    files = sorted(path for path in folder.rglob("*/*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    write_atomically(folder / CHECKSUMS, json.dumps(sums, indent=1))


def damage(folder: Path, without: str = "", only: str = "") -> str | None:
    """What is wrong with a checkpoint's first damaged file, None where all are as they were written.

    Args:
      folder: of one checkpoint.
      without: an item (subfolder) that is not looked at.
      only: the one item that is looked at.
    """
    try:
        sums = json.loads((folder / CHECKSUMS).read_bytes())
    except FileNotFoundError:
        # Earlier versions wrote none.
        empty = [item for item in ("params", "rest") if not (folder / item / "_METADATA").is_file()]
        return f"{empty[0]} has no files" if empty else None
    except ValueError:
        return f"{CHECKSUMS} cannot be read"
    for name, expected in sums.items():
        item = name.partition("/")[0]
        if item == without or (only and item != only):
            continue
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _sha256(folder / name) != expected:
            return f"{name} is not what was written"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
