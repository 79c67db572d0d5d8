"""Runs that write caches, in processes of their own that can be killed."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import jax

from fqgan_jax.caches.extract_features import extract_features
from fqgan_jax.caches.tokenize import tokenize
from fqgan_jax.caches.write_shards import PassSettings
from fqgan_jax.data.sources import open_source
from fqgan_jax.errors import UserError
from fqgan_jax.pretrained.teachers import teachers
from support import dino_files, tiny_models

SETTINGS = PassSettings(batch_size_per_device=2, num_threads=2, images_per_shard=4)


def write(kind: str, images: Path, out: Path, weights: Path) -> None:
    """Writes a cache of "codes" or "features"; exits with 2 where the folder is complete already."""
    os.environ["FQGAN_CACHE"] = str(weights)
    source = open_source(str(images), "train", validation_fraction=0)
    try:
        if kind == "codes":
            tokenize(tiny_models.tiny_tokenizer(2), source, out, crops=2, settings=SETTINGS)
        else:
            teachers._rows["dinov2-small"] = dino_files.small_teacher()
            extract_features(["dinov2-small", "hog"], source, out, augmentations=2, image_size=16, settings=SETTINGS)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def write_to_bucket(environment: Mapping[str, str], *arguments) -> None:
    """`write` with the variables by which the clients of buckets find their server."""
    os.environ |= environment
    write(*arguments)


def write_as_host(process: int, count: int, port: int, *arguments) -> None:
    """`write` as one of several hosts."""
    jax.distributed.initialize(f"localhost:{port}", count, process)
    write(*arguments)
