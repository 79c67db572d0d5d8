"""Batches of images for training and evaluation, and their transfer to devices."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import grain
import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float, UInt8

from fqgan_jax.data import transforms
from fqgan_jax.data.images import UnreadableImageError
from fqgan_jax.data.skipping import Images, Skipped, passed_over, read_or_next
from fqgan_jax.data.sources import Source
from fqgan_jax.data.stalls import Stalls
from fqgan_jax.data.stream import Batch, Prepared, Stream, train_batches

FeatureFunction = Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, " W"]]


def image_batches(
    source: Source,
    stream: Stream,
    *,
    image_size: transforms.Size,
    skipped: Skipped,
    feature_functions: Mapping[str, FeatureFunction] | None = None,
    full_decode: bool = False,
) -> Iterator[Batch]:
    """Yields training batches of random crops; the next readable image replaces an unreadable one.

    Args:
      source: images to draw from.
      stream: batch size, seed, first step, and threads and processes that read.
      image_size: of the crops, a side or (height, width).
      skipped: collects unreadable images.
      feature_functions: functions of a crop by teacher name.
      full_decode: decode JPEG files at full scale even if a reduced scale holds every pixel that the crop needs.

    Yields:
      "image" uint8 [B, H, W, 3], "label" int32 [B], and "feature/NAME" [B, W] for each feature function.

    Raises:
      UserError: when a batch is requested: more images were skipped than `skipped` allows.
    """
    stalls = Stalls(source.name)

    def prepare(index: int, rng: np.random.Generator) -> Prepared:
        side = transforms.random_side(image_size, rng)
        with stalls.reading(int(index)):
            served, image = read_or_next(
                source, int(index), None if full_decode else transforms.needed_side(image_size, side)
            )
        crop = transforms.random_crop(image, image_size, rng, side=side)
        features = {f"feature/{name}": function(crop) for name, function in (feature_functions or {}).items()}
        label = np.int32(source.label(served))
        return {"image": crop, "label": label, **features, "requested": np.int64(index), "served": np.int64(served)}

    return collect_skipped(stalls.watched(train_batches(range(len(source)), prepare, stream)), source, skipped)


def collect_skipped(batches: Iterator[Batch], source: Images, skipped: Skipped) -> Iterator[Batch]:
    """Removes "requested" and "served" indices from batches and records the unreadable images between them.

    This counts each image once, whether images are read in threads or in other processes.
    """
    for batch in batches:
        requested, served = batch.pop("requested"), batch.pop("served")
        differs = requested != served
        for first, last in zip(requested[differs], served[differs], strict=True):
            for name, reason in passed_over(source, int(first), int(last)).items():
                skipped.add(name, reason)
        yield batch


def evaluation_batches(
    source: Source,
    *,
    image_size: transforms.Size,
    batch_size: int,
    skipped: Skipped,
    limit: int | None = None,
    num_threads: int = 8,
) -> Iterator[Batch]:
    """Yields every readable image once and in order, fully decoded and centre-cropped.

    Args:
      source: images to read.
      image_size: of the crops, a side or (height, width).
      batch_size: images in a batch; the last one is filled up with zeros.
      skipped: collects unreadable images.
      limit: number of images, from the first on; None reads all.
      num_threads: threads that read.

    Yields:
      "image" uint8 [B, H, W, 3], "label" int32 [B], and "mask" float32 [B], which is 0 for filler.

    Raises:
      UserError: when a batch is requested: more images were skipped than `skipped` allows.
    """
    stalls = Stalls(source.name)

    def read(index: int) -> Prepared | str:
        try:
            with stalls.reading(index):
                image = source.read(index)
            crop = transforms.center_crop(image, image_size)
        except UnreadableImageError as error:
            return str(error)
        return {"image": crop, "label": np.int32(source.label(index)), "mask": np.float32(1)}

    count = min(len(source), limit or len(source))
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=4 * num_threads)
    pending: list[Prepared] = []
    examples = grain.MapDataset.range(count).map(read).to_iter_dataset(options)
    for index, example in enumerate(stalls.watched(examples)):
        if isinstance(example, str):
            skipped.add(source.name(index), example)
            continue
        pending.append(example)
        if len(pending) == batch_size:
            yield _stack(pending)
            pending = []
    if pending:
        filler = jax.tree.map(np.zeros_like, pending[0])
        yield _stack(pending + [filler] * (batch_size - len(pending)))


def _stack(examples: Sequence[Prepared]) -> Batch:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def to_devices(batches: Iterator[Batch], sharding: Sharding, *, num_ahead: int = 2) -> Iterator[dict[str, jax.Array]]:
    """Yields global arrays made of each host's slices; batches are transferred `num_ahead` steps before use."""
    queue: deque[dict[str, jax.Array]] = deque()
    for batch in batches:
        queue.append(jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch))
        if len(queue) > num_ahead:
            yield queue.popleft()
    yield from queue
