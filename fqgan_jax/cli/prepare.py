"""`fqgan prepare`."""

import argparse

from fqgan_jax.cli.arguments import SOURCE, add_data_dir, add_validation_fraction, add_workers, positive, stoppable
from fqgan_jax.storage import as_path

HELP = "Write a dataset as ArrayRecord shards, which are read fast from any storage; resumable after a stop."
EXAMPLES = """\
  fqgan prepare /data/imagenet /data/records
  fqgan prepare /data/imagenet /data/records_320 --shorter-side 320 --workers 16 --processes --verify
  fqgan prepare tfds:imagenet2012:5.1.0 /data/records --data-dir /data/tfds
  fqgan prepare /data/shards_of_tar /data/records --validation-fraction 0.01"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan prepare`."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("folder", metavar="DEST", type=as_path, help="folder for the shards and their manifest.json")
    add_data_dir(parser)
    add_workers(parser)
    parser.add_argument(
        "--shorter-side",
        type=positive,
        default=0,
        metavar="N",
        help="scale larger images down to it and store them as JPEG (default: files are kept as they are)",
    )
    parser.add_argument("--quality", type=_quality, default=95, help="of that JPEG, 1 to 100 (default: %(default)s)")
    add_validation_fraction(parser)
    parser.add_argument(
        "--images-per-shard", type=positive, default=1024, metavar="N", help="in one file (default: %(default)s)"
    )
    parser.add_argument("--verify", action="store_true", help="then read everything back and compare checksums")


def _quality(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return value


def run(options) -> None:
    """Writes the shards, prints their totals, and verifies them if asked to."""
    from fqgan_jax.data.preparation.pool import Pool
    from fqgan_jax.data.preparation.prepare import Settings, prepare
    from fqgan_jax.data.preparation.verify import verify

    settings = Settings(
        shorter_side=options.shorter_side,
        quality=options.quality,
        images_per_shard=options.images_per_shard,
        validation_fraction=options.validation_fraction,
    )
    pool = Pool(options.workers, processes=options.processes)
    with stoppable():
        manifest = prepare(options.source, options.folder, settings, pool=pool, data_dir=options.data_dir)
        for split, shards in manifest.splits.items():
            num_images, num_bytes = sum(shard.count for shard in shards), sum(shard.bytes for shard in shards)
            num_files = len([shard for shard in shards if shard.count])
            print(f"{split}: {num_images} images, {num_bytes / 1e6:.1f} MB in {num_files} shard(s)")
            for shard in shards:
                for name, reason in shard.skipped.items():
                    print(f"{split}: skipped {name}: {reason}")
        if options.verify:
            print(f"verified: {verify(options.folder, pool)} images are whole and as the manifest says")
    print(f"{len(manifest.class_names)} class(es) -> {options.folder}")
