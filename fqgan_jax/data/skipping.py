"""What happens to images that cannot be read: skipped, counted, named, and an error when they are too many."""

import logging
import math

from PIL import Image

from fqgan_jax.data.images import UnreadableImage
from fqgan_jax.errors import UserError

log = logging.getLogger(__name__)

ALWAYS_ALLOWED = 10  # skipped images that end no run by themselves, so that small folders may hold a few
LONGEST_RUN = 100  # unreadable images in a row after which the source is taken to be gone


def largest_skipped(count: int, fraction: float) -> int:
    """How many of a source's images may be skipped: a fraction, at least ten; none where the fraction is 0."""
    return max(ALWAYS_ALLOWED, math.floor(fraction * count)) if fraction > 0 else 0


class Skipped:
    """Images that could not be read, by name: each is logged when it is met, and all are reported at the end.

    Where more than `limit` come together, `add` raises a `UserError`.
    """

    def __init__(self, limit: float = math.inf):
        self.limit = limit
        self.reasons: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        """Counts an image once."""
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
        """Empty, or a sentence with the count and at most ten names."""
        if not self.reasons:
            return ""
        names = [f"{name} ({reason})" for name, reason in sorted(self.reasons.items())[:10]]
        more = f" and {len(self.reasons) - 10} more" if len(self.reasons) > 10 else ""
        return f"Skipped {len(self.reasons)} unreadable image(s): {', '.join(names)}{more}"


def read_or_next(source, index: int, shortest_side: int | None = None) -> tuple[int, Image.Image]:
    """Reads an image or, where it is damaged, the next readable one, so that a batch depends on the files alone.

    Raises:
      UserError: not one image can be read, or a hundred in a row cannot.
    """
    for offset in range(min(len(source), LONGEST_RUN)):
        candidate = (index + offset) % len(source)
        try:
            return candidate, source.read(candidate, shortest_side)
        except UnreadableImage as error:
            reason = f"{source.name(candidate)} ({error})"
    tried = min(len(source), LONGEST_RUN)
    raise UserError(f"None of the {tried} images that were tried in a row can be read, the last one {reason}.")


def unreadable(source, first: int, served: int) -> dict[str, str]:
    """Names and reasons of the images that `read_or_next` passed over from `first` to the one it served."""
    reasons = {}
    for offset in range((served - first) % len(source)):
        index = (first + offset) % len(source)
        try:
            source.read(index)
            reasons[source.name(index)] = "could not be read at first"
        except UnreadableImage as error:
            reasons[source.name(index)] = str(error)
    return reasons
