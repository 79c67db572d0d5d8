"""Threads or processes that work through tasks, with a progress bar over the images and a clean end."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from fqgan_jax.errors import UserError

_worker = {}  # in a worker process: what its tasks share


class Stopped(Exception):
    """Ends a task whose result nobody waits for any more."""


class Pool:
    """Runs tasks in `size` threads or processes of their own."""

    def __init__(self, size: int, *, processes: bool = False):
        self.size, self.processes = size, processes

    def run(
        self, task: Callable, shared: object, arguments: Sequence[tuple], title: str, total: int, done: int = 0
    ) -> list:
        """Results of `task(shared, *arguments, tick)` for each arguments, in order.

        A task calls `tick` after each image; the bar shows `done` and all ticks of `total`. The first exception stops
        all tasks at their next tick and is raised here.

        Raises:
          UserError: a worker process died.
        """
        if self.processes:
            context = multiprocessing.get_context("spawn")
            counter, stop = context.Value("q", 0), context.Event()
            executor = ProcessPoolExecutor(self.size, context, _start_worker, (task, shared, counter, stop))
            submit = lambda each: executor.submit(_run_in_worker, each)
        else:
            counter, stop = _Counter(), threading.Event()
            executor = ThreadPoolExecutor(self.size)
            submit = lambda each: executor.submit(task, shared, *each, _ticker(counter, stop))
        try:
            with tqdm(total=total, initial=done, desc=title, unit=" images") as progress:
                futures = [submit(each) for each in arguments]
                waiting = set(futures)
                while waiting:
                    finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                    progress.update(done + counter.value - progress.n)
        except BrokenProcessPool as error:
            raise UserError(
                f"A worker process of {title} was killed, perhaps for want of memory: run the same command again, "
                "with fewer --workers."
            ) from error
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


class _Counter:
    """What `multiprocessing.Value` is for processes."""

    def __init__(self):
        self.value, self._lock = 0, threading.Lock()

    def get_lock(self) -> threading.Lock:
        return self._lock


def _ticker(counter, stop) -> Callable[[], None]:
    def tick():
        if stop.is_set():
            raise Stopped
        with counter.get_lock():
            counter.value += 1

    return tick


def _start_worker(task: Callable, shared: object, counter, stop) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(task=task, shared=shared, tick=_ticker(counter, stop))


def _end_with_parent() -> None:
    """A killed parent takes its workers along, so that nothing is written behind the back of the next run."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run_in_worker(arguments: tuple):
    return _worker["task"](_worker["shared"], *arguments, _worker["tick"])
