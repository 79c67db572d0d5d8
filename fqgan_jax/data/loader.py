"""Batches of images for training and evaluation, and their transfer to devices."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import grain
import jax
import numpy as np
from jax.sharding import Sharding

from fqgan_jax.data import transforms
from fqgan_jax.data.images import UnreadableImage
from fqgan_jax.data.skipping import Skipped, read_or_next, unreadable
from fqgan_jax.data.sources import Source
from fqgan_jax.data.stream import Batch, Stream, train_batches


def image_batches(
    source: Source,
    stream: Stream,
    *,
    image_size: int,
    skipped: Skipped,
    feature_functions: Sequence[tuple[str, Callable]] = (),
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

    return noting_skipped(train_batches(range(len(source)), prepare, stream), source, skipped)


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
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    skipped: Skipped,
    limit: int | None = None,
    num_threads: int = 8,
) -> Iterator[Batch]:
    """Every image once, fully decoded, centre-cropped, in order; "mask" is 0 where the last batch is filled up."""

    def example(index: int) -> Batch | str:
        try:
            crop = transforms.center_crop(source.read(index), image_size)
        except UnreadableImage as error:
            return str(error)
        return {"image": crop, "label": np.int32(source.label(index)), "mask": np.float32(1)}

    count = min(len(source), limit or len(source))
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=4 * num_threads)
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


def to_devices(batches: Iterator[Batch], sharding: Sharding, *, ahead: int = 2) -> Iterator[dict[str, jax.Array]]:
    """Global arrays sharded over devices, made of each host's slices, transferred `ahead` batches before use."""
    queue = deque()
    for batch in batches:
        queue.append(jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch))
        if len(queue) > ahead:
            yield queue.popleft()
    yield from queue
