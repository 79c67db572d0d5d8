"""`fqgan tokenize`."""

from typing import TYPE_CHECKING

from fqgan_jax.cli.arguments import (
    add_batch_size,
    add_checkpoint,
    add_codebooks,
    add_out,
    add_pace,
    add_seed,
    add_source,
    add_validation_fraction,
    positive,
    stoppable,
)

if TYPE_CHECKING:
    from fqgan_jax.data.sources import Source

MANY_PROCESSES = True
HELP = "Write a dataset's codes, from which a generator is trained; resumable after a stop."
EXAMPLES = """\
  fqgan tokenize --checkpoint runs/tokenizer --data /data/imagenet --out runs/codes
  fqgan tokenize --checkpoint runs/tokenizer --data /data/imagenet --random-crops 16 --out runs/codes
  fqgan tokenize --checkpoint runs/tokenizer --data photos --crops center --out runs/codes"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan tokenize`."""
    add_checkpoint(parser, "tokenizer")
    add_codebooks(parser)
    add_source(parser)
    parser.add_argument(
        "--split",
        choices=("both", "train", "validation"),
        default="both",
        help="both: the training split, and in the folder validation its held-out images, a centre crop each "
        "(default); a single one goes to the folder itself",
    )
    add_validation_fraction(parser)
    add_out(parser, "folder for the code cache")
    crops = parser.add_mutually_exclusive_group()
    crops.add_argument(
        "--crops",
        choices=("ten", "center"),
        help="ten: corners, centre and their mirror images of a 1.1 times larger square, as published (default); "
        "center: one",
    )
    crops.add_argument(
        "--random-crops", type=positive, metavar="R", help="instead: R crops of each image as the tokenizer's training"
    )
    add_seed(parser, "of random crops")
    add_batch_size(parser, 64, "crops at a time on each device")
    add_pace(parser)


def run(options) -> None:
    """Writes the code cache and prints what was skipped."""
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.caches.tokenize import tokenize, tokenize_splits
    from fqgan_jax.caches.write_shards import PassSettings

    tokenizer, sources = load_tokenizer(options.checkpoint).first(options.codebooks), _sources(options)
    settings = PassSettings(
        batch_size_per_device=options.batch_size,
        num_threads=options.workers,
        images_per_shard=options.images_per_shard,
    )
    shared = {
        "crops": options.random_crops or options.crops or "ten",
        "seed": options.seed,
        "settings": settings,
        "source_name": options.data,
    }
    with stoppable():
        if options.split == "both":
            written = tokenize_splits(tokenizer, sources, options.out, **shared)
        else:
            source = sources[options.split]
            written = {options.split: tokenize(tokenizer, source, options.out, split=options.split, **shared)}
    for split, (manifest, skipped) in written.items():
        if skipped.reasons:
            print(skipped.report())
        print(f"{split}: {manifest['count']} images, {manifest['crops']} crop(s) each")
    print(f"Codes -> {options.out}")


def _sources(options) -> "dict[str, Source]":
    """Opens the wanted splits; a source without validation images has no codes of them."""
    from fqgan_jax.data.sources import open_source
    from fqgan_jax.data.sources.splits import EmptySplitError

    sources = {}
    for split in ("train", "validation") if options.split == "both" else (options.split,):
        try:
            sources[split] = open_source(
                options.data, split, validation_fraction=options.validation_fraction, data_dir=options.data_dir
            )
        except EmptySplitError:
            if options.split != "both" or split == "train":
                raise
            print(f"{options.data} has no validation images: no codes are held out.")
    return sources
