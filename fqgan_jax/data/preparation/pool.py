"""Threads or processes that work through tasks, with a progress bar over images and a clean end."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.synchronize
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from tqdm import tqdm

from fqgan_jax.errors import UserError

_worker: dict[str, Any] = {}  # in a worker process: the task function, its shared argument and the progress callback


Progress = Callable[[], None]  # called after each image; raises `TaskStoppedError` if the task is to stop
Task = Callable[[Any, Any, Progress], Any]  # function of the shared argument, an item and the progress callback


class TaskStoppedError(Exception):
    """Ends a task whose result is no longer needed."""


class Pool:
    """Runs tasks in threads or worker processes.

    Attributes:
      size: number of threads or processes.
      processes: whether tasks run in processes.
    """

    def __init__(self, size: int, *, processes: bool = False):
        self.size, self.processes = size, processes

    def run(
        self, task: Task, shared: object, items: Sequence, *, title: str, num_images: int, num_done: int = 0
    ) -> list:
        """Returns the results of `task(shared, item, progress)` for each item, in order.

        The first exception stops all tasks at their next call of `progress` and is raised here.

        Args:
          task: the function; with processes, it and its arguments must be picklable.
          shared: argument that all tasks share; it is sent to each process once.
          items: one argument per task.
          title: title of the progress bar.
          num_images: images in all, for the progress bar.
          num_done: images that an earlier run finished, for the progress bar.

        Raises:
          UserError: a worker process died.
        """
        counter: Counter
        stop: Stop
        executor: Executor
        run_item: Callable[[Any], Any]
        if self.processes:
            context = multiprocessing.get_context("spawn")
            counter, stop = context.Value("q", 0), context.Event()
            executor = ProcessPoolExecutor(self.size, context, _start_worker, (task, shared, counter, stop))
            run_item = _run_in_worker
        else:
            counter, stop = _Counter(), threading.Event()
            executor = ThreadPoolExecutor(self.size)
            run_item = partial(_run_in_thread, task, shared, _progress(counter, stop))
        try:
            with tqdm(total=num_images, initial=num_done, desc=title, unit=" images") as bar:
                futures = [executor.submit(run_item, item) for item in items]
                waiting = set(futures)
                while waiting:
                    finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                    bar.update(num_done + counter.value - bar.n)
        except BrokenProcessPool as error:
            raise UserError(
                f"A worker process of {title} was killed, perhaps for lack of memory: run the same command again, "
                "with fewer --workers."
            ) from error
        finally:
            stop.set()
            executor.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


class _Counter:
    """Counts images of threads, with the interface of `multiprocessing.Value`."""

    def __init__(self):
        self.value, self._lock = 0, threading.Lock()

    def get_lock(self) -> threading.Lock:
        return self._lock


Counter = _Counter | Synchronized
Stop = threading.Event | multiprocessing.synchronize.Event


def _progress(counter: Counter, stop: Stop) -> Progress:
    def progress() -> None:
        if stop.is_set():
            raise TaskStoppedError
        with counter.get_lock():
            counter.value += 1

    return progress


def _run_in_thread(task: Task, shared: object, progress: Progress, item: object):
    return task(shared, item, progress)


def _start_worker(task: Task, shared: object, counter: Counter, stop: Stop) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(task=task, shared=shared, progress=_progress(counter, stop))


def _end_with_parent() -> None:
    """Ends this process if its parent is killed, so that it does not write at the same time as the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run_in_worker(item: object):
    return _worker["task"](_worker["shared"], item, _worker["progress"])
