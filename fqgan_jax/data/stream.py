"""Endless training batches, each a function of seed and step.

Training example i of the infinite shuffled order is a function of (seed, i). Global batch s holds the examples
s*B ... s*B + B - 1, and each host reads its slice of them. A resumed run therefore reads the same batches as an
uninterrupted one, on any number of hosts.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Protocol, TypeVar

import grain
import numpy as np
from absl import flags
from grain.multiprocessing import SharedMemoryArray

from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import WHOLE_BATCH, BatchSlice

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
Prepared = Mapping[str, np.ndarray | np.generic]  # an example, before it is part of a batch
Element = TypeVar("Element")
Element_co = TypeVar("Element_co", covariant=True)
NUM_EXAMPLES = 2**48  # length of the endless order: more than any run reads
MAX_WORKER_DEATHS = 3  # at the same batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Which training batches are read, and by how many threads and processes.

    Attributes:
      batch_size: examples in a global batch, over all hosts; a multiple of `batch_slice.count`.
      seed: seed of the order and of every example's random generator.
      start_step: step of the first batch.
      batch_slice: the part of each global batch that this host reads.
      num_threads: threads that read, in this process or in each worker process.
      num_workers: worker processes; 0 reads in threads of this process.
    """

    batch_size: int
    seed: int = 0
    start_step: int = 0
    batch_slice: BatchSlice = WHOLE_BATCH
    num_threads: int = 2
    num_workers: int = 0


class Elements(Protocol[Element_co]):
    """What examples are made from, by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Element_co: ...


def train_batches(
    elements: Elements[Element], prepare: Callable[[Element, np.random.Generator], Prepared], stream: Stream
) -> Iterator[Batch]:
    """Returns an endless iterator over this host's slice of each global batch, from `stream.start_step` on.

    Args:
      elements: what to draw from; a new permutation every epoch.
      prepare: makes an example from an element and a random generator of its own. With worker processes, both
        `elements` and `prepare` must be picklable by cloudpickle.
      stream: batch size, seed, first step, and threads and processes that read.

    Raises:
      UserError: when a batch is requested: worker processes died repeatedly at the same batch.
    """
    index, count = stream.batch_slice.index, stream.batch_slice.count

    def make_example(position: int, rng: np.random.Generator) -> Prepared:
        return prepare(elements[shuffled_index(position, len(elements), stream.seed)], rng)

    dataset = grain.MapDataset.range(NUM_EXAMPLES).seed(stream.seed).random_map(make_example)
    dataset = dataset.batch(stream.batch_size // count)
    options = grain.ReadOptions(num_threads=stream.num_threads, prefetch_buffer_size=2 * stream.num_threads)

    def dataset_from(step: int) -> grain.IterDataset:
        return dataset[step * count + index :: count].to_iter_dataset(options)

    if not stream.num_workers:
        return iter(dataset_from(stream.start_step))
    workers = grain.MultiprocessingOptions(stream.num_workers, per_worker_buffer_size=2)
    return _worker_batches(lambda step: iter(dataset_from(step).mp_prefetch(workers)), stream.start_step)


def shuffled_index(position: int, num_elements: int, seed: int) -> int:
    """Returns the element at a position of the endless order, in which every epoch is a new permutation."""
    epoch, offset = divmod(position, num_elements)
    return int(_permutation(num_elements, seed, epoch)[offset])


@lru_cache(maxsize=4)  # the epochs that threads read at the same time
def _permutation(num_elements: int, seed: int, epoch: int) -> np.ndarray:
    # grain's own shuffle computes one position at a time, which takes up to a millisecond for small datasets.
    return np.random.default_rng([seed, epoch]).permutation(num_elements).astype(np.uint32)


def _worker_batches(start: Callable[[int], grain.DatasetIterator], step: int) -> Iterator[Batch]:
    """Yields batches from worker processes; if one dies, all are restarted at the missing batch.

    Raises:
      UserError: a worker died more than `MAX_WORKER_DEATHS` times at the same batch.
    """
    if not flags.FLAGS.is_parsed():  # grain's workers read absl's flags, which no command here parses
        flags.FLAGS.mark_as_parsed()
    batches, batch, num_deaths = start(step), None, 0
    try:
        while True:
            try:
                batch = next(batches)
            except RuntimeError as error:
                if "terminated unexpectedly" not in str(error):
                    raise
                num_deaths += 1
                if num_deaths > MAX_WORKER_DEATHS:
                    raise UserError(
                        f"A data worker process died {num_deaths} times at batch {step}, perhaps for lack of memory: "
                        "lower data.num_workers, or read in threads (data.num_workers=0)."
                    ) from error
                log.warning("A data worker process died at batch %d; restarting the workers.", step)
                batches.close()
                batches = start(step)
            else:
                num_deaths, step = 0, step + 1
                # Copied out of shared memory, which would leak if a device array still held it at exit.
                yield {name: np.array(value) for name, value in batch.items()}
    finally:
        batches.close()
        del batch
        _finish_deletions()


def _finish_deletions() -> None:
    # grain deletes the shared memory of past batches in a thread, which an exiting interpreter stops in the middle.
    pool = SharedMemoryArray._del_thread_pool
    with contextlib.suppress(ValueError):  # the pool has ended: the interpreter is exiting
        if pool is not None:
            pool.apply(int)
