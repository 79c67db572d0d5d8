"""Calls in a thread, for writing that training does not wait for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Calls functions in a thread, one after the other; at most one is not done when the next one starts."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1)
        self._call: Future = Future()
        self._call.set_result(None)

    def start(self, function: Callable, *arguments: object) -> None:
        """Waits for the call before, and starts another one; raises the error of the one before."""
        self.wait()
        self._call = self._thread.submit(function, *arguments)

    def wait(self) -> None:
        """Waits for the last call, and raises its error."""
        self._call.result()
