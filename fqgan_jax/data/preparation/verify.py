"""Reads back and checks everything that `fqgan prepare` wrote."""

from itertools import groupby
from pathlib import Path

from fqgan_jax.data.images import UnreadableImageError, read_image
from fqgan_jax.data.preparation.pool import Pool, Progress
from fqgan_jax.data.shards import check_size
from fqgan_jax.data.sources.records import Manifest, Shard, decode_record
from fqgan_jax.errors import UserError
from fqgan_jax.files import sha256_of
from fqgan_jax.storage import local_copy


def verify(folder: Path, pool: Pool) -> int:
    """Checks size, checksum, labels and images of every shard; returns the number of images.

    Raises:
      UserError: a shard differs from what the manifest says; every damaged shard is named.
    """
    manifest = Manifest.read(folder)
    shards = [shard for shards in manifest.splits.values() for shard in shards if shard.count]
    total = sum(shard.count for shard in shards)
    faults = pool.run(_find_fault, folder, shards, title="verify", num_images=total)
    if damaged := [fault for fault in faults if fault]:
        raise UserError(f"{folder} is damaged: {'; '.join(damaged)}. Copy these files again, or prepare it again.")
    return total


def _find_fault(folder: Path, shard: Shard, progress: Progress) -> str:
    """Returns what is wrong with a shard; empty if nothing is."""
    from array_record.python.array_record_module import ArrayRecordReader

    path = folder / shard.file
    try:
        check_size(path, shard.bytes)
        copy = local_copy(path)
        if sha256_of(copy) != shard.sha256:
            return f"{path} does not have its checksum"
        reader = ArrayRecordReader(str(copy))
        labels = []
        for _ in range(reader.num_records()):
            record = decode_record(reader.read())
            labels.append(record.label)
            read_image(record.image)
            progress()
    except (OSError, RuntimeError, UnreadableImageError, UserError) as error:
        return str(error)
    runs = tuple((label, len(list(run))) for label, run in groupby(labels))
    return "" if runs == shard.labels else f"{path} has other labels than the manifest says"
