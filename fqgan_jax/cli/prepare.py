"""`fqgan prepare`."""

import argparse
from pathlib import Path

from fqgan_jax.cli.arguments import SOURCE, add_data_dir, add_validation_fraction, add_workers, positive, stoppable

HELP = "Write a dataset as ArrayRecord shards, which are read fast from any storage; goes on where it was stopped."
EXAMPLES = """\
  fqgan prepare /data/imagenet /data/records
  fqgan prepare /data/imagenet /data/records_320 --shorter-side 320 --workers 16 --processes --verify
  fqgan prepare tfds:imagenet2012:5.1.0 /data/records --data-dir /data/tfds
  fqgan prepare /data/shards_of_tar /data/records --validation-fraction 0.01"""


def add_arguments(parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("folder", metavar="DEST", type=Path, help="folder for the shards and their manifest.json")
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
    from fqgan_jax.data.preparation.pool import Pool
    from fqgan_jax.data.preparation.prepare import Settings, prepare
    from fqgan_jax.data.preparation.verify import verify

    settings = Settings(options.shorter_side, options.quality, options.images_per_shard, options.validation_fraction)
    pool = Pool(options.workers, processes=options.processes)
    with stoppable():
        manifest = prepare(options.source, options.folder, settings, pool, options.data_dir)
        for split, shards in manifest.splits.items():
            count, size = (sum(getattr(shard, name) for shard in shards) for name in ("count", "bytes"))
            print(
                f"{split}: {count} images, {size / 1e6:.1f} MB in {sum(shard.count > 0 for shard in shards)} shard(s)"
            )
            for name, reason in (item for shard in shards for item in shard.skipped.items()):
                print(f"{split}: skipped {name}: {reason}")
        if options.verify:
            print(f"verified: {verify(options.folder, pool)} images are whole and as the manifest says")
    print(f"{len(manifest.class_names)} class(es) -> {options.folder}")
