"""Images a second of the training loader, and of a PyTorch `DataLoader` with the same augmentation in PIL."""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from fqgan_jax.data.loader import image_batches
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source
from fqgan_jax.data.stream import Stream
from fqgan_jax.data.transforms import random_side, resize_shorter_side
from fqgan_jax.errors import import_extra

OURS, FLOATS, BYTES = "this loader", "PyTorch, float32", "PyTorch, uint8"
WARM_UP = 8  # batches before the clock starts: more than either loader holds ready


def bench_loader(source: Source, data, steps: int, torch_workers: int = 2, rounds: int = 3) -> dict[str, float]:
    """Times the loaders in turn, `rounds` times each, over `steps` batches of images and labels.

    This loader serves uint8, which the device converts. PyTorch's, where it is installed, is timed twice: with float32
    `[3, H, W]` in [-1, 1], as its networks take them and torchvision's ToTensor and Normalize make them, and with bare
    uint8 arrays.

    Args:
      data: the config's part of that name: image_size, batch_size, num_threads, num_workers, full_decode.

    Returns the median images a second of each and their range, and how many times as fast this loader is.
    """
    others = (FLOATS, BYTES) if find_spec("torch") else ()
    rates: dict[str, list[float]] = {name: [] for name in (OURS, *others)}
    for seed in range(rounds):
        stream = Stream(
            batch_size=data.batch_size, seed=seed, num_threads=data.num_threads, num_workers=data.num_workers
        )
        ours = image_batches(
            source, stream, image_size=data.image_size, skipped=Skipped(), full_decode=data.full_decode
        )
        rates[OURS].append(_rate(ours, data.batch_size, steps))
        del ours  # ends its threads and processes
        for kind in others:
            images = PillowImages(source, data.image_size, floats=kind == FLOATS)
            theirs = torch_batches(images, data.batch_size, WARM_UP + steps, torch_workers)
            rates[kind].append(_rate(theirs, data.batch_size, steps))
            del theirs
    values = {}
    for name, each in rates.items():
        values |= {f"{name} (images/s)": median(each), f"{name}, slowest": min(each), f"{name}, fastest": max(each)}
    ratio = lambda kind: median(rates[OURS]) / median(rates[kind])
    return values | {f"times as fast as {kind}": ratio(kind) for kind in others}


def synthetic_folder(folder: Path, count: int = 64, size: tuple[int, int] = (500, 375)) -> Path:
    """Writes JPEG files of soft noise, of ImageNet's usual size, in two classes; returns the folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noise = rng.integers(-12, 13, (size[1], size[0], 3))
        pixels = np.clip(np.asarray(soft, np.int16) + noise, 0, 255).astype(np.uint8)
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class{i % 2}" / f"{i:03d}.jpg", quality=95)
    return folder


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
        import torch  # in a worker process

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
    utils = import_extra("torch", "torch").utils.data
    sampler = utils.RandomSampler(images, replacement=True, num_samples=count * batch_size)
    return iter(utils.DataLoader(images, batch_size, sampler=sampler, num_workers=workers))
