"""Unreadable images: they are skipped, counted and named, and too many of them are an error."""

import logging
import math
from typing import Protocol

from PIL import Image

from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.errors import UserError

log = logging.getLogger(__name__)

ALWAYS_ALLOWED = 10  # skipped images that never end a run, so that small datasets may hold a few
MAX_CONSECUTIVE = 100  # unreadable images in a row after which the source counts as lost


def largest_skipped(count: int, fraction: float) -> int:
    """Returns how many of `count` images may be skipped: a fraction, but at least ten; none if the fraction is 0."""
    return max(ALWAYS_ALLOWED, math.floor(fraction * count)) if fraction > 0 else 0


class Skipped:
    """Collects images that could not be read.

    Attributes:
      limit: number of images above which `add` raises an error.
      reasons: reason by image name.
    """

    def __init__(self, limit: float = math.inf):
        self.limit = limit
        self.reasons: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        """Logs and counts an image, once for each name.

        Raises:
          UserError: more than `limit` images have been skipped.
        """
        if name in self.reasons:
            return
        self.reasons[name] = reason
        log.warning("Skipped %s: %s", name, reason)
        if len(self.reasons) > self.limit:
            raise UserError(
                f"{self.report()}. That is more than the {self.limit} allowed by data.largest_skipped_fraction: "
                "repair or remove them (fqgan data lists them all), or raise the fraction."
            )

    def report(self) -> str:
        """Returns a sentence with the count and at most ten names; empty if no image was skipped."""
        if not self.reasons:
            return ""
        names = [f"{name} ({reason})" for name, reason in sorted(self.reasons.items())[:10]]
        more = f" and {len(self.reasons) - 10} more" if len(self.reasons) > 10 else ""
        return f"Skipped {len(self.reasons)} unreadable image(s): {', '.join(names)}{more}"


class Images(Protocol):
    """What is asked of a source here."""

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """Name of an image."""
        ...

    def read(self, index: int, shortest_side: int | None = None, /) -> Image.Image:
        """The image; raises `UnreadableImageError`."""
        ...


def read_or_next(source: Images, index: int, shortest_side: int | None = None) -> tuple[int, Image.Image]:
    """Reads an image or, if it is unreadable, the next readable one, so that a batch depends on the files alone.

    Returns:
      The index of the image that was read, and the image.

    Raises:
      UserError: no image of the source, or none of a hundred in a row, can be read.
    """
    for offset in range(min(len(source), MAX_CONSECUTIVE)):
        candidate = (index + offset) % len(source)
        try:
            return candidate, source.read(candidate, shortest_side)
        except UnreadableImageError as error:
            reason = f"{source.name(candidate)} ({error})"
    tried = min(len(source), MAX_CONSECUTIVE)
    raise UserError(f"None of the {tried} images that were tried in a row can be read, the last one {reason}.")


def passed_over(source: Images, requested: int, served: int) -> dict[str, str]:
    """Returns name and reason of each image that `read_or_next` passed over between two indices.

    Args:
      source: the source of the images.
      requested: index that was requested.
      served: index that was served instead.
    """
    reasons = {}
    for offset in range((served - requested) % len(source)):
        index = (requested + offset) % len(source)
        try:
            source.read(index)
            reasons[source.name(index)] = "could not be read at first"
        except UnreadableImageError as error:
            reasons[source.name(index)] = str(error)
    return reasons
