"""Names the files that a loader waits for when reading takes long."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

SECONDS = 60.0  # after which a file that is being read is named, again and again

T = TypeVar("T")
log = logging.getLogger(__name__)


class Stalls:
    """The files that the threads of a loader are reading; worker processes have their own, which nobody watches.

    Args:
      name: returns the name of a file by its index.
    """

    def __init__(self, name: Callable[[int], str]):
        self._name = name
        self._reading: dict[int, tuple[int, float]] = {}

    @contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Says that this thread reads a file while the block runs."""
        thread = threading.get_ident()
        self._reading[thread] = index, time.monotonic()
        try:
            yield
        finally:
            self._reading.pop(thread, None)

    def watched(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields the batches, and warns of the files that they wait for."""
        stop = threading.Event()
        threading.Thread(target=self._watch, args=(stop,), daemon=True).start()
        try:
            yield from batches
        finally:
            stop.set()

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(SECONDS):
            now = time.monotonic()
            for index, since in list(self._reading.values()):
                if now - since >= SECONDS:
                    log.warning("Reading %s has taken %.0f seconds so far.", self._name(index), now - since)
