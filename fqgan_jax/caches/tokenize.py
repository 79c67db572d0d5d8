"""Writes a code cache with a frozen tokenizer."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Array, PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.caches.codes import MANIFEST, VALIDATION, CodeCache, CodesManifest
from fqgan_jax.caches.records import Crops
from fqgan_jax.caches.write_shards import CachePass, PassSettings, RandomCrops, describe_source, write_cache
from fqgan_jax.data import transforms
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.shards import ShardFolder
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source
from fqgan_jax.data.transforms import height_and_width
from fqgan_jax.errors import check
from fqgan_jax.models.applying import apply
from fqgan_jax.sharding.passes import DeviceBatch

FIXED_CROPS = {"ten": 10, "center": 1}


def tokenize_splits(
    tokenizer: Tokenizer,
    sources: Mapping[str, Source],
    out: Path,
    *,
    crops: str | int = "ten",
    seed: int = 0,
    settings: PassSettings | None = None,
    source_name: str = "",
) -> dict[str, tuple[dict, Skipped]]:
    """Writes the codes of a source's splits: "train" to a folder, and the centre crops of "validation" within it.

    Args:
      tokenizer: the frozen tokenizer.
      sources: the images of each split.
      out: folder for the codes of the training split; those of the validation split go to `out / VALIDATION`.
      crops: of the training split, see `tokenize`.
      seed: seed of random crops.
      settings: batch size, threads and shard size of the pass; None uses the defaults.
      source_name: name of the source, for the manifests.

    Returns:
      Manifest and skipped images of each split that was written by this call.

    Raises:
      UserError: all is there already, or a folder holds something else, or no image can be read.
    """
    folders = {"train": (out, crops), "validation": (out / VALIDATION, "center")}
    unfinished = [split for split in sources if not (folders[split][0] / MANIFEST).exists()]
    written = {}
    for split, source in sources.items():
        folder, split_crops = folders[split]
        if unfinished and split not in unfinished:
            check(
                CodeCache(folder).stored.tokenizer == tokenizer.fingerprint,
                f"{folder} was written by another tokenizer: choose another --out, or remove it first.",
            )
            continue
        written[split] = tokenize(
            tokenizer,
            source,
            folder,
            crops=split_crops,
            seed=seed,
            settings=settings,
            source_name=source_name,
            split=split,
        )
    return written


def tokenize(
    tokenizer: Tokenizer,
    source: Source,
    out: Path,
    *,
    crops: str | int = "ten",
    seed: int = 0,
    settings: PassSettings | None = None,
    source_name: str = "",
    split: str = "train",
) -> tuple[dict, Skipped]:
    """Writes the codes of every readable image's crops, or continues an earlier call that was stopped.

    Args:
      tokenizer: the frozen tokenizer.
      source: the images.
      out: folder for the cache.
      crops: "ten" (as published; see `transforms.ten_crops`), "center", or a number of random crops as in training.
      seed: seed of random crops.
      settings: batch size, threads and shard size of the pass; None uses the defaults.
      source_name: name of the source, for the manifest.
      split: split of the source, for the manifest.

    Returns:
      The manifest and the skipped images.

    Raises:
      UserError: `out` is complete or holds something else, or no image can be read.
    """
    module, size = tokenizer.module, tokenizer.image_size
    kind, count = (crops, FIXED_CROPS[crops]) if isinstance(crops, str) else ("random", crops)
    manifest = CodesManifest(
        tokenizer=tokenizer.fingerprint,
        num_codebooks=module.num_codebooks,
        codebook_size=module.codebook_size,
        grid=module.grid,
        crops=count,
        kind=kind,
        seed=seed if kind == "random" else 0,
        class_names=tuple(source.class_names),
    )

    def read_fixed_crops(index: int) -> Crops:
        image = source.read(index, shortest_side=round(1.1 * max(height_and_width(size))))
        images = transforms.ten_crops(image, size) if kind == "ten" else transforms.center_crop(image, size)[None]
        return Crops(images, np.zeros((0, 4), np.int32), {})

    def encode(params: PyTree, batch: DeviceBatch) -> dict[str, Array]:
        return {"codes": apply(module, params, to_float(batch["image"]), method="encode")}

    random_crops = RandomCrops(source=source, image_size=size, num_crops=count, seed=seed)
    work = CachePass(
        source=source,
        read=random_crops if kind == "random" else read_fixed_crops,
        num_crops=count,
        image_size=size,
        step=encode,
        params=tokenizer.params,
        encode=manifest.encode,
        recorded=dataclasses.asdict(manifest) | {"image_size": size} | describe_source(source, source_name, split),
    )
    folder = ShardFolder(path=out, manifest=MANIFEST, command="fqgan tokenize")
    return write_cache(work, folder, settings or PassSettings())
