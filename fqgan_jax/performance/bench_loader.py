"""Images a second of the training loader, beside a PyTorch `DataLoader` with the same augmentation in PIL."""

import time
from collections.abc import Iterator
from statistics import median

import numpy as np
from PIL import Image

from fqgan_jax.data.loader import image_batches
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source
from fqgan_jax.data.transforms import random_side, resize_shorter_side
from fqgan_jax.errors import UserError

FLOATS, BYTES = "PyTorch, float32", "PyTorch, uint8"
WARM_UP = 8  # batches before the clock starts: more than either loader holds ready


def bench_loader(source: Source, data, steps: int, torch_workers: int = 2, rounds: int = 3) -> dict[str, float]:
    """Times the loaders in turn, `rounds` times each, over `steps` batches of images and labels.

    This loader serves uint8, which the device converts. PyTorch's is timed twice: with float32 `[3, H, W]` in [-1, 1],
    as its networks take them and torchvision's ToTensor and Normalize make them, and with bare uint8 arrays.

    Args:
      data: the config's part of that name: image_size, batch_size, num_threads, num_workers, full_decode.

    Returns the median images a second of each, and how many times as fast this loader is.

    Raises:
      UserError: PyTorch is not installed.
    """
    rates: dict[str, list[float]] = {"this loader": [], FLOATS: [], BYTES: []}
    reading = {"num_threads": data.num_threads, "num_workers": data.num_workers, "full_decode": data.full_decode}
    for seed in range(rounds):
        ours = image_batches(source, data.image_size, data.batch_size, seed, 0, Skipped(), **reading)
        rates["this loader"].append(_rate(ours, data.batch_size, steps))
        del ours  # ends its threads and processes
        for kind in (FLOATS, BYTES):
            images = PillowImages(source, data.image_size, floats=kind == FLOATS)
            theirs = torch_batches(images, data.batch_size, WARM_UP + steps, torch_workers)
            rates[kind].append(_rate(theirs, data.batch_size, steps))
            del theirs
    medians = {name: median(values) for name, values in rates.items()}
    values = {f"{name} (images/s)": rate for name, rate in medians.items()}
    return values | {f"times as fast as {kind}": medians["this loader"] / medians[kind] for kind in (FLOATS, BYTES)}


def _rate(batches: Iterator, batch_size: int, steps: int) -> float:
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * batch_size / (time.perf_counter() - start)


class PillowImages:
    """What a PyTorch `DataLoader` reads: file names and labels, decoded and augmented with PIL in the plain way."""

    def __init__(self, source: Source, image_size: int, floats: bool):
        self.floats = floats
        self.files = [(source.name(index), source.label(index)) for index in range(len(source))]
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        import torch

        file, label = self.files[index]
        with Image.open(file) as image:
            image = image.convert("RGB")
        rng, size = np.random.default_rng(), self.image_size
        image = resize_shorter_side(image, random_side(size, rng))
        left, top = int(rng.integers(image.width - size + 1)), int(rng.integers(image.height - size + 1))
        image = image.crop((left, top, left + size, top + size))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image))
        if self.floats:
            pixels = pixels.permute(2, 0, 1).contiguous().float().div(255).sub(0.5).div(0.5)
        return pixels, label


def torch_batches(images: PillowImages, batch_size: int, count: int, workers: int) -> Iterator:
    """`count` batches of a PyTorch `DataLoader` with worker processes, drawn with replacement so that none is short."""
    try:
        from torch.utils.data import DataLoader, RandomSampler
    except ImportError as error:
        raise UserError(
            "fqgan bench loader compares with PyTorch: pip install torch (the extra fqgan-jax[torch])."
        ) from error
    sampler = RandomSampler(images, replacement=True, num_samples=count * batch_size)
    return iter(DataLoader(images, batch_size, sampler=sampler, num_workers=workers))
