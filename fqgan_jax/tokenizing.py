"""From images to a code cache with a frozen tokenizer."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from fqgan_jax.api import Tokenizer
from fqgan_jax.data import transforms
from fqgan_jax.data.codes import CodesManifest, write_codes
from fqgan_jax.data.images import UnreadableImage
from fqgan_jax.data.sources import Skipped, Source
from fqgan_jax.sharding.mesh import batch_sharding, make_mesh, replicated

CROPS = {"ten": transforms.ten_crops, "center": lambda image, size: transforms.center_crop(image, size)[None]}


def tokenize(
    tokenizer: Tokenizer, source: Source, out: Path, crops: str = "ten", batch_size: int = 64
) -> tuple[CodesManifest, Skipped]:
    """Writes the codes of every readable image's crops; encoding is spread over all devices.

    `crops` is "ten" (published: see `transforms.ten_crops`) or "center".

    Raises:
      UserError: `out` exists, or not one image can be read.
    """
    module = tokenizer.module
    count = {"ten": 10, "center": 1}[crops]
    manifest = CodesManifest(
        tokenizer.fingerprint,
        module.num_codebooks,
        module.codebook_size,
        module.grid,
        count,
        tuple(source.class_names),
    )
    skipped = Skipped()

    def records() -> Iterator[tuple[int, np.ndarray]]:
        devices = jax.device_count()
        images_at_a_time = max(1, batch_size // count)
        # Always the same shape, so that it is compiled once: rows after the last image are filled with zeros.
        rows = -(-images_at_a_time * count // devices) * devices
        mesh = make_mesh({"data": -1, "fsdp": 1})
        everywhere = dataclasses.replace(tokenizer, params=jax.device_put(tokenizer.params, replicated(mesh)))
        for labels, images in _groups(source, tokenizer.image_size, CROPS[crops], images_at_a_time, skipped):
            flat = np.concatenate(images)
            padded = np.concatenate([flat, np.zeros((rows - len(flat), *flat.shape[1:]), flat.dtype)])
            codes = np.asarray(everywhere.encode(jax.device_put(padded, batch_sharding(mesh))))[: len(flat)]
            yield from zip(labels, codes.reshape(len(labels), count, *codes.shape[1:]), strict=True)

    with tqdm(total=len(source), desc="tokenize") as progress:
        manifest = write_codes(out, manifest, _counted(records(), progress))
    return manifest, skipped


def _groups(source: Source, size: int, crop, group: int, skipped: Skipped) -> Iterator[tuple[list, list]]:
    labels, images = [], []
    for index in range(len(source)):
        try:
            images.append(crop(source.read(index, shortest_side=round(1.1 * size)), size))
            labels.append(source.label(index))
        except UnreadableImage as error:
            skipped.add(source.name(index), str(error))
        if len(images) == group:
            yield labels, images
            labels, images = [], []
    if images:
        yield labels, images


def _counted(items: Iterator, progress: tqdm) -> Iterator:
    for item in items:
        yield item
        progress.update()
