"""Writes a feature cache with frozen teachers."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Array, PyTree

from fqgan_jax.caches.records import Crops
from fqgan_jax.caches.teacher_features import MANIFEST, encode_features
from fqgan_jax.caches.write_shards import CachePass, PassSettings, RandomCrops, describe_source, write_cache
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.shards import ShardFolder
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source
from fqgan_jax.data.transforms import Size
from fqgan_jax.pretrained import teachers as pretrained
from fqgan_jax.pretrained.weights import check_fetched
from fqgan_jax.sharding.passes import DeviceBatch


def extract_features(
    teachers: Sequence[str],
    source: Source,
    out: Path,
    *,
    augmentations: int,
    image_size: Size,
    seed: int = 0,
    full_decode: bool = False,
    settings: PassSettings | None = None,
    source_name: str = "",
    split: str = "train",
) -> tuple[dict, Skipped]:
    """Writes the features of every image's augmentations, or continues an earlier call that was stopped.

    Networks compute in float32. An augmentation is a training crop that depends on (seed, image, number) alone.

    Args:
      teachers: names of teachers.
      source: the images.
      out: folder for the cache.
      augmentations: number of augmentations of each image.
      image_size: of the crops, a side or (height, width).
      seed: seed of the augmentations.
      full_decode: decode JPEG files at full scale, as `data.full_decode` of a config.
      settings: batch size, threads and shard size of the pass; None uses the defaults.
      source_name: name of the source, for the manifest.
      split: split of the source, for the manifest.

    Returns:
      The manifest and the skipped images.

    Raises:
      UserError: a teacher is unknown, its weights are missing, `out` is complete or holds something else, or no image
        can be read.
    """
    for teacher in teachers:
        pretrained.teachers.check(teacher, "--teacher")
    teachers = list(dict.fromkeys(teachers))
    networks = pretrained.device_teachers(teachers, "float32")
    check_fetched(pretrained.needed_weights(teachers))
    params = {teacher: network.load() for teacher, network in networks.items()}
    random_crops = RandomCrops(
        source=source, image_size=image_size, num_crops=augmentations, seed=seed, full_decode=full_decode
    )

    def features(params: PyTree, batch: DeviceBatch) -> dict[str, Array]:
        images = to_float(batch["image"])
        return {teacher: network.features(params[teacher], images) for teacher, network in networks.items()}

    recorded = {
        "class_names": list(source.class_names),
        "image_size": image_size,
        "augmentations": augmentations,
        "seed": seed,
        "decode": "full" if full_decode else "reduced",
        "teachers": _describe_teachers(teachers),
    }
    work = CachePass(
        source=source,
        read=_reader(teachers, random_crops),
        num_crops=augmentations,
        image_size=image_size,
        step=features,
        params=params,
        encode=partial(encode_features, teachers),
        recorded=describe_source(source, source_name, split) | recorded,
    )
    folder = ShardFolder(path=out, manifest=MANIFEST, command="fqgan features")
    return write_cache(work, folder, settings or PassSettings())


def _reader(teachers: Sequence[str], random_crops: RandomCrops) -> Callable[[int], Crops]:
    """Returns a function that reads an image's crops and computes the features of the teachers that run on the host."""
    functions = {name: teacher.features for name, teacher in pretrained.host_teachers(teachers).items()}

    def read(index: int) -> Crops:
        crops = random_crops(index)
        rows = {
            teacher: np.stack([features(image) for image in crops.images]) for teacher, features in functions.items()
        }
        return crops._replace(rows=rows)

    return read


def _describe_teachers(teachers: Sequence[str]) -> dict[str, dict]:
    """Returns each teacher's width and the SHA-256 of its weights, for the manifest."""
    weights = pretrained.known_weights(teachers)
    return {each: {"width": pretrained.teachers[each].width, "weights": weights.get(each)} for each in teachers}
