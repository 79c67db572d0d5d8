"""Batches of images for training and evaluation.

Training element i of the infinite shuffled order is a function of (seed, i); global batch s holds elements
s*B ... s*B + B - 1, and each host reads its slice of them. So a batch depends on seed and step alone.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding

from fqgan_jax.data import transforms
from fqgan_jax.data.images import UnreadableImage
from fqgan_jax.data.skipping import Skipped, read_or_next, unreadable
from fqgan_jax.data.sources import Source
from fqgan_jax.errors import UserError
from fqgan_jax.sharding.mesh import WHOLE_BATCH, BatchSlice

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
ENDLESS = 2**48  # examples: the longest run
LARGEST_DEATHS = 3  # of worker processes at the same batch


def train_batches(
    elements: Sequence,
    prepare: Callable[[object, np.random.Generator], Batch],
    batch_size: int,
    seed: int,
    start_step: int,
    num_threads: int,
    process: BatchSlice = WHOLE_BATCH,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Endless batches from `start_step` on: this host's slice of each global batch.

    Args:
      elements: what is shuffled, anew every epoch.
      prepare: makes an example of an element with a random generator of its own.
      batch_size: of the global batch, over all hosts.
      process: the slice that this host reads.
      num_workers: processes that prepare, each with `num_threads`; 0: the threads of this one do.
    """
    index, count = process.index, process.count
    example = lambda place, rng: prepare(elements[shuffled(place, len(elements), seed)], rng)
    dataset = grain.MapDataset.range(ENDLESS).seed(seed).random_map(example).batch(batch_size // count)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    from_step = lambda step: dataset[step * count + index :: count].to_iter_dataset(options)
    if not num_workers:
        return iter(from_step(start_step))
    if not flags.FLAGS.is_parsed():  # grain's worker processes read absl's flags, which no command here parses
        flags.FLAGS.mark_as_parsed()
    # Batches that the workers hold ready at the end lie in shared memory, which is freed with a needless warning.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
    return _restarting(lambda step: iter(from_step(step).mp_prefetch(workers)), start_step)


def shuffled(place: int, count: int, seed: int) -> int:
    """The element at a place of the endless order, in which every epoch is a permutation of `count` elements."""
    epoch, offset = divmod(place, count)
    return int(_permutation(count, seed, epoch)[offset])


@lru_cache(maxsize=4)  # the epochs that threads read at the same time
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    # grain's own shuffle computes one place at a time, which takes up to a millisecond where elements are few.
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.uint32)


def _restarting(start: Callable[[int], Iterator[Batch]], step: int) -> Iterator[Batch]:
    """Batches from worker processes: where one dies, all begin anew at the batch that is missing.

    Raises:
      UserError: one died again and again at the same batch.
    """
    batches, deaths = start(step), 0
    try:
        while True:
            try:
                batch = next(batches)
            except RuntimeError as error:
                if "terminated unexpectedly" not in str(error):
                    raise
                deaths += 1
                if deaths > LARGEST_DEATHS:
                    raise UserError(
                        f"A data worker process died {deaths} times at batch {step}, perhaps for want of memory: "
                        "lower data.num_workers, or read in threads (data.num_workers=0)."
                    ) from error
                log.warning("A data worker process died at batch %d; the workers are started again.", step)
                batches.close()
                batches = start(step)
            else:
                deaths, step = 0, step + 1
                yield batch
    finally:
        batches.close()


def image_batches(
    source: Source,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int,
    skipped: Skipped,
    feature_functions: Sequence[tuple[str, Callable]] = (),
    num_threads: int = 2,
    process: BatchSlice = WHOLE_BATCH,
    num_workers: int = 0,
    full_decode: bool = False,
) -> Iterator[Batch]:
    """Training batches: "image" uint8 [B, size, size, 3], "label" int32 [B], and per teacher "feature/NAME" [B, W].

    A teacher's function sees the very crop that it describes. JPEG files are decoded at a reduced scale that still
    holds every pixel the crop needs, unless `full_decode`. The next readable image stands in for an unreadable one.

    Raises:
      UserError: when a batch is asked for: more images were skipped than `skipped` allows.
    """

    def prepare(index: int, rng: np.random.Generator) -> Batch:
        side = transforms.random_side(image_size, rng)
        served, image = read_or_next(source, int(index), None if full_decode else side)
        crop = transforms.random_crop(image, image_size, rng, side)
        example = {"image": crop, "label": np.int32(source.label(served)), "asked": np.int64(index)}
        example["served"] = np.int64(served)
        return example | {f"feature/{name}": function(crop) for name, function in feature_functions}

    elements = range(len(source))
    batches = train_batches(elements, prepare, batch_size, seed, start_step, num_threads, process, num_workers)
    return noting_skipped(batches, source, skipped)


def noting_skipped(batches: Iterator[Batch], source: Source, skipped: Skipped) -> Iterator[Batch]:
    """Takes what was asked for and what was served out of the batches and names the images in between.

    This way the count is right wherever the images are read: in threads or in other processes.
    """
    for batch in batches:
        asked, served = batch.pop("asked"), batch.pop("served")
        for first, last in zip(asked[asked != served], served[asked != served], strict=True):
            for name, reason in unreadable(source, int(first), int(last)).items():
                skipped.add(name, reason)
        yield batch


def evaluation_batches(
    source: Source, image_size: int, batch_size: int, skipped: Skipped, limit: int | None = None
) -> Iterator[Batch]:
    """Every image once, fully decoded, centre-cropped, in order; "mask" is 0 where the last batch is filled up."""

    def example(index: int) -> Batch | str:
        try:
            crop = transforms.center_crop(source.read(index), image_size)
        except UnreadableImage as error:
            return str(error)
        return {"image": crop, "label": np.int32(source.label(index)), "mask": np.float32(1)}

    count = min(len(source), limit or len(source))
    options = grain.ReadOptions(num_threads=16, prefetch_buffer_size=64)
    pending: list[Batch] = []
    for index, read in enumerate(grain.MapDataset.range(count).map(example).to_iter_dataset(options)):
        if isinstance(read, str):
            skipped.add(source.name(index), read)
            continue
        pending.append(read)
        if len(pending) == batch_size:
            yield _stack(pending)
            pending = []
    if pending:
        filler = jax.tree.map(np.zeros_like, pending[0])
        yield _stack(pending + [filler] * (batch_size - len(pending)))


def _stack(examples: Sequence[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def to_devices(batches: Iterator[Batch], sharding: NamedSharding, ahead: int = 2) -> Iterator[dict[str, jax.Array]]:
    """Global arrays sharded over devices, made of each host's slices, transferred `ahead` batches before use."""
    put = lambda batch: jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
    queue = []
    for batch in batches:
        queue.append(put(batch))
        if len(queue) > ahead:
            yield queue.pop(0)
    yield from queue
