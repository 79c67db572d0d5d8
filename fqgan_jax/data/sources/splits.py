"""Training and validation splits: their names, and the held-out part of a source that has none of its own."""

import re
import zlib
from collections.abc import Iterable, Sequence

from fqgan_jax.errors import UserError

SPLIT_NAMES = {"train": ("train",), "validation": ("val", "valid", "validation")}


class EmptySplitError(UserError):
    """A source has no image for a split."""


def split_of(name: str) -> str | None:
    """Returns the split that a word of a file name means ("imagenet-val-000.tar": "validation"), or None."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, names in SPLIT_NAMES.items() if words & set(names)), None)


def present_splits(names: Iterable[str]) -> dict[str, str]:
    """Returns the name of each split, or nothing unless both splits are among the names."""
    names = set(names)
    found = {split: next((name for name in wanted if name in names), "") for split, wanted in SPLIT_NAMES.items()}
    return found if all(found.values()) else {}


def split_positions(names_and_labels: Sequence[tuple[str, int]], split: str, validation_fraction: float) -> list[int]:
    """Returns the positions of a split's images: a fraction of each class, chosen by a hash of the names, is held out.

    A class keeps at least one image for training. If it has two and the fraction is not 0, at least one is held out.
    """
    classes: dict[int, list[int]] = {}
    for position, (_, label) in enumerate(names_and_labels):
        classes.setdefault(label, []).append(position)
    held_out: set[int] = set()
    for positions in classes.values():
        by_hash = sorted(positions, key=lambda position: _hash_order(names_and_labels[position][0]))
        held_out.update(by_hash[: _num_held_out(len(positions), validation_fraction)])
    return [i for i in range(len(names_and_labels)) if (i in held_out) == (split == "validation")]


def _hash_order(name: str) -> tuple[int, str]:
    file = name.rsplit("/", 1)[-1]
    return zlib.crc32(file.encode(errors="surrogateescape")), name


def _num_held_out(count: int, fraction: float) -> int:
    return min(count - 1, max(1, round(fraction * count))) if fraction > 0 else 0
