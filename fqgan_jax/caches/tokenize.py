"""From images to a code cache with a frozen tokenizer."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Array, PyTree

from fqgan_jax.api import Tokenizer
from fqgan_jax.caches.codes import MANIFEST, CodesManifest
from fqgan_jax.caches.records import CachePass, Crops, PassSettings, described, random_crops, write_cache
from fqgan_jax.data import transforms
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.shards import ShardFolder
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source
from fqgan_jax.sharding.passes import Batch

FIXED_CROPS = {"ten": 10, "center": 1}


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
    """Writes the codes of every readable image's crops, or goes on where an earlier call stopped.

    Args:
      crops: "ten" (published: see `transforms.ten_crops`), "center", or a number of random crops as in training.
      seed: of random crops.
      settings: batch size, threads and shard size of the pass.
      source_name, split: of the source, for the manifest.

    Raises:
      UserError: `out` is finished or holds something else, or not one image can be read.
    """
    module, size = tokenizer.module, tokenizer.image_size
    kind, count = (crops, FIXED_CROPS[crops]) if crops in FIXED_CROPS else ("random", crops)
    manifest = CodesManifest(
        tokenizer.fingerprint,
        module.num_codebooks,
        module.codebook_size,
        module.grid,
        count,
        kind,
        seed if kind == "random" else 0,
        tuple(source.class_names),
    )

    def read(index: int) -> Crops:
        if kind == "random":
            return random_crops(source, size, count, seed, False, index)
        image = source.read(index, shortest_side=round(1.1 * size))
        images = transforms.ten_crops(image, size) if kind == "ten" else transforms.center_crop(image, size)[None]
        return Crops(images, np.zeros((0, 4), np.int32), {})

    def encode(params: PyTree, batch: Batch) -> dict[str, Array]:
        return {"codes": module.apply({"params": params}, to_float(batch["image"]), method="encode")}

    recorded = dataclasses.asdict(manifest) | {"image_size": size} | described(source, source_name, split)
    work = CachePass(source, read, count, size, encode, tokenizer.params, manifest.encode, recorded)
    return write_cache(work, ShardFolder(out, MANIFEST, "fqgan tokenize"), settings or PassSettings())
