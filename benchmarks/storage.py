"""Images a second that training reads from object storage: the first epoch, and one from the local copies.

    python benchmarks/storage.py gs://bucket/bench --count 1000

It writes the same synthetic photographs (500x375) below the URL as an image folder, as tar files and as prepared
records, reads each, and compares with the local disk.
"""

import argparse
import os
import tarfile
import tempfile
import time
from pathlib import Path

from fqgan_jax.data.loader import image_batches
from fqgan_jax.data.preparation.pool import Pool
from fqgan_jax.data.preparation.prepare import Settings, prepare
from fqgan_jax.data.skipping import Skipped
from fqgan_jax.data.sources import open_source
from fqgan_jax.data.stream import Stream
from fqgan_jax.files import upload_folder
from fqgan_jax.performance.bench_loader import synthetic_folder
from fqgan_jax.storage import as_path, set_cache

BATCH, SHARDS = 50, 4


def write_tars(images: Path, folder: Path) -> None:
    """Writes the images of a folder to tar files in WebDataset layout."""
    folder.mkdir()
    files = sorted(images.glob("*/*.jpg"))
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for file in files[shard::SHARDS]:
                tar.add(file, f"{file.parent.name}/{file.name}")


def rates(name: str, threads: int) -> tuple[float, float, float]:
    """Returns the seconds until a source is open, and the images a second of two epochs."""
    begun = time.perf_counter()
    source = open_source(name, "train", validation_fraction=0)
    opened = time.perf_counter() - begun
    stream = Stream(batch_size=BATCH, num_threads=threads)
    batches, found = image_batches(source, stream, image_size=256, skipped=Skipped()), []
    for _ in range(2):
        begun = time.perf_counter()
        for _ in range(len(source) // BATCH):
            next(batches)
        found.append(len(source) // BATCH * BATCH / (time.perf_counter() - begun))
    return opened, *found


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "images").mkdir()
        synthetic_folder(root / "images", count=options.count)
        write_tars(root / "images", root / "tars")
        settings = Settings(validation_fraction=0, images_per_shard=-(-options.count // SHARDS))
        prepare(str(root / "images"), root / "records", settings, pool=Pool(os.cpu_count()))
        set_cache(str(root / "cache"), 20)
        print("| | seconds to open | images/s, first epoch | images/s, second epoch |\n| --- | --- | --- | --- |")
        for kind in ("images", "tars", "records"):
            upload_folder(root / kind, as_path(options.url) / kind)
            for where, name in (("disk", root / kind), ("storage", f"{options.url}/{kind}")):
                opened, first, second = rates(str(name), options.threads)
                print(f"| {kind}, {where} | {opened:.2f} | {first:.0f} | {second:.0f} |", flush=True)
        as_path(options.url).remove_tree()


if __name__ == "__main__":
    main()
