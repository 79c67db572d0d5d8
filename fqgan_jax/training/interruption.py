"""Signals that end a run after it has saved its state."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from fqgan_jax.sharding import processes


class Interruption:
    """Whether a signal has asked the run to stop.

    Attributes:
      signal: the number of the signal, None before it.
    """

    def __init__(self):
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def before(self, step: int) -> bool:
        """Returns whether the run ends before this step; the same on all processes. Call it before every step."""
        if jax.process_count() > 1 and processes.agreed_to_stop(step):
            self.signal = signal.SIGTERM
        return bool(self)


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Catches SIGTERM and SIGINT so that the loop can save before it stops; a second signal ends the process at once.

    If there are many processes, JAX itself catches SIGTERM and notifies all of them, so SIGINT becomes SIGTERM.
    """
    found = Interruption()
    previous: dict[signal.Signals, Any] = {}

    def receive(number, frame):
        del frame
        found.signal = number
        for each in previous:
            signal.signal(each, signal.SIG_DFL)

    def forward(number, frame):
        del frame
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    many = jax.process_count() > 1
    handlers = {signal.SIGINT: forward} if many else {signal.SIGTERM: receive, signal.SIGINT: receive}
    try:
        for number, handler in handlers.items():
            previous[number] = signal.signal(number, handler)
    except ValueError:  # not in the main thread, as in a notebook's worker: signals stay as they are
        previous.clear()
    try:
        yield found
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
