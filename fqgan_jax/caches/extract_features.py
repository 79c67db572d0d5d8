"""From images to a feature cache with frozen teachers."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Array, PyTree

from fqgan_jax.caches.records import CachePass, Crops, PassSettings, described, random_crops, write_cache
from fqgan_jax.caches.teacher_features import MANIFEST, encode_features
from fqgan_jax.data.pixels import to_float
from fqgan_jax.data.shards import ShardFolder
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import Source
from fqgan_jax.pretrained import teachers as pretrained
from fqgan_jax.pretrained.weights import check_fetched
from fqgan_jax.sharding.passes import Batch


def extract_features(
    teachers: Sequence[str],
    source: Source,
    out: Path,
    *,
    augmentations: int,
    image_size: int,
    seed: int = 0,
    full_decode: bool = False,
    settings: PassSettings | None = None,
    source_name: str = "",
    split: str = "train",
) -> tuple[dict, Skipped]:
    """Writes the features of every image's augmentations, or goes on where an earlier call stopped.

    Networks compute in float32. An augmentation is a training crop drawn by a generator of (seed, image, number).

    Args:
      teachers: names in `teachers.registry`.
      image_size: side of the crops.
      full_decode: as `data.full_decode` of a config.
      settings: batch size, threads and shard size of the pass.
      source_name, split: of the source, for the manifest.

    Raises:
      UserError: an unknown teacher, weights that are missing, a folder that is finished or holds something else, or
        not one readable image.
    """
    for teacher in teachers:
        pretrained.teachers.check(teacher, "--teacher")
    teachers = list(dict.fromkeys(teachers))
    networks = pretrained.device_teachers(teachers, "float32")
    check_fetched(pretrained.needed_weights(teachers))
    params = {teacher: network.load() for teacher, network in networks.items()}
    functions = {name: teacher.features for name, teacher in pretrained.host_teachers(teachers).items()}

    def read(index: int) -> Crops:
        crops = random_crops(source, image_size, augmentations, seed, full_decode, index)
        rows = {
            teacher: np.stack([features(image) for image in crops.images]) for teacher, features in functions.items()
        }
        return crops._replace(rows=rows)

    def features(params: PyTree, batch: Batch) -> dict[str, Array]:
        images = to_float(batch["image"])
        return {teacher: network.features(params[teacher], images) for teacher, network in networks.items()}

    weights = pretrained.known_weights(teachers)
    recorded = described(source, source_name, split) | {
        "class_names": list(source.class_names),
        "image_size": image_size,
        "augmentations": augmentations,
        "seed": seed,
        "decode": "full" if full_decode else "reduced",
        "teachers": {
            each: {"width": pretrained.teachers[each].width, "weights": weights.get(each)} for each in teachers
        },
    }
    encode = partial(encode_features, teachers)
    work = CachePass(source, read, augmentations, image_size, features, params, encode, recorded)
    return write_cache(work, ShardFolder(out, MANIFEST, "fqgan features"), settings or PassSettings())
