"""Training and validation: the names of splits, and the share that is kept aside where a source has none."""

import re
import zlib
from collections.abc import Iterable, Sequence

from fqgan_jax.errors import UserError

SPLIT_NAMES = {"train": ("train",), "validation": ("val", "valid", "validation")}


class EmptySplit(UserError):
    """A source without images for a split."""


def split_of(name: str) -> str | None:
    """The split that a file's name speaks of ("imagenet-val-000.tar": "validation"), or None."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, names in SPLIT_NAMES.items() if words & set(names)), None)


def share(names_and_labels: Sequence[tuple[str, int]], split: str, validation_fraction: float) -> list[int]:
    """Positions of a split's images: of each class a fraction, chosen by a hash of the names, is for validation.

    A class keeps at least one image for training and, if it has two and the fraction is not 0, gives at least one.
    """
    classes: dict[int, list[int]] = {}
    for position, (_, label) in enumerate(names_and_labels):
        classes.setdefault(label, []).append(position)
    chosen: set[int] = set()
    for positions in classes.values():
        by_hash = sorted(positions, key=lambda position: _hash_order(names_and_labels[position][0]))
        chosen.update(by_hash[: _held_out(len(positions), validation_fraction)])
    return [i for i in range(len(names_and_labels)) if (i in chosen) == (split == "validation")]


def _hash_order(name: str) -> tuple[int, str]:
    file = name.rsplit("/", 1)[-1]
    return zlib.crc32(file.encode(errors="surrogateescape")), name


def _held_out(count: int, fraction: float) -> int:
    return min(count - 1, max(1, round(fraction * count))) if fraction > 0 else 0


def present_splits(names: Iterable[str]) -> dict[str, str]:
    """Split to name, where `names` (folders, say) hold one for training and one for validation; else nothing."""
    names = set(names)
    found = {split: next((name for name in wanted if name in names), None) for split, wanted in SPLIT_NAMES.items()}
    return found if all(found.values()) else {}
