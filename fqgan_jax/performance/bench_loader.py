"""Images per second of the training loader and of a PyTorch `DataLoader` with the same augmentation in Pillow."""

import dataclasses
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
from fqgan_jax.data.transforms import random_side, resize_to_cover
from fqgan_jax.errors import import_extra

GRAIN, TORCH_FLOAT32, TORCH_UINT8 = "this loader", "PyTorch, float32", "PyTorch, uint8"
WARM_UP = 8  # batches before timing starts: more than either loader prefetches


def bench_loader(
    source: Source,
    stream: Stream,
    *,
    image_size: int,
    full_decode: bool = False,
    num_steps: int,
    num_torch_workers: int = 2,
    num_rounds: int = 3,
) -> dict[str, float]:
    """Times the loaders in turn.

    This loader yields uint8, which the device converts. PyTorch's, if it is installed, is timed twice: with float32
    `[3, H, W]` in [-1, 1], as torchvision's ToTensor and Normalize make it, and with plain uint8 arrays.

    Args:
      source: images to read; their names are the paths of files.
      stream: batch size, threads and worker processes of this loader.
      image_size: side of the crops.
      full_decode: see `image_batches`.
      num_steps: batches that are timed.
      num_torch_workers: worker processes of PyTorch's loader.
      num_rounds: how often each loader is timed.

    Returns:
      Median, lowest and highest images per second of each loader, and the speed of this one relative to the others.
    """
    others = (TORCH_FLOAT32, TORCH_UINT8) if find_spec("torch") else ()
    rates: dict[str, list[float]] = {name: [] for name in (GRAIN, *others)}
    for seed in range(num_rounds):
        stream = dataclasses.replace(stream, seed=seed)
        batches = image_batches(source, stream, image_size=image_size, skipped=Skipped(), full_decode=full_decode)
        rates[GRAIN].append(_rate(batches, stream.batch_size, num_steps))
        del batches  # ends its threads and processes
        for kind in others:
            images = PillowImages(source, image_size, floats=kind == TORCH_FLOAT32)
            batches = torch_batches(images, stream.batch_size, count=WARM_UP + num_steps, num_workers=num_torch_workers)
            rates[kind].append(_rate(batches, stream.batch_size, num_steps))
            del batches
    values: dict[str, float] = {}
    for name, each in rates.items():
        values |= {f"{name} (images/s)": median(each), f"{name}, slowest": min(each), f"{name}, fastest": max(each)}
    return values | {f"times as fast as {kind}": median(rates[GRAIN]) / median(rates[kind]) for kind in others}


def synthetic_folder(folder: Path, *, count: int = 64, size: tuple[int, int] = (500, 375)) -> Path:
    """Writes JPEG files of soft noise, of ImageNet's usual size, to two subfolders; returns the folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noise = rng.integers(-12, 13, (size[1], size[0], 3))
        pixels = np.clip(np.asarray(soft, np.int16) + noise, 0, 255).astype(np.uint8)
        (folder / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class{i % 2}" / f"{i:03d}.jpg", quality=95)
    return folder


def _rate(batches: Iterator, batch_size: int, num_steps: int) -> float:
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(num_steps):
        next(batches)
    return num_steps * batch_size / (time.perf_counter() - start)


class PillowImages:
    """A PyTorch data set of file names and labels; images are decoded and augmented with Pillow alone."""

    def __init__(self, source: Source, image_size: int, *, floats: bool):
        self.floats = floats
        self.files = [(source.name(index), source.label(index)) for index in range(len(source))]
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        import torch  # in a worker process

        file, label = self.files[index]
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        rng, size = np.random.default_rng(), self.image_size
        image = resize_to_cover(image, random_side(size, rng))
        left, top = int(rng.integers(image.width - size + 1)), int(rng.integers(image.height - size + 1))
        image = image.crop((left, top, left + size, top + size))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image))
        if self.floats:
            pixels = pixels.permute(2, 0, 1).contiguous().float().div(255).sub(0.5).div(0.5)
        return pixels, label


def torch_batches(images: PillowImages, batch_size: int, *, count: int, num_workers: int) -> Iterator:
    """Returns `count` batches of a PyTorch `DataLoader`, drawn with replacement so that all are full."""
    utils = import_extra("torch", "torch").utils.data
    sampler = utils.RandomSampler(images, replacement=True, num_samples=count * batch_size)
    return iter(utils.DataLoader(images, batch_size, sampler=sampler, num_workers=num_workers))
