"""`fqgan tokenize`."""

from fqgan_jax.cli.arguments import (
    add_batch_size,
    add_checkpoint,
    add_codebooks,
    add_data,
    add_out,
    add_pace,
    add_seed,
    add_validation_fraction,
    positive,
    stoppable,
)

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
    add_data(parser)
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
    from fqgan_jax.caches.tokenize import tokenize
    from fqgan_jax.caches.write_shards import PassSettings
    from fqgan_jax.data.sources import open_source

    tokenizer = load_tokenizer(options.checkpoint).first(options.codebooks)
    source = open_source(
        options.data,
        options.split,
        validation_fraction=options.validation_fraction,
        data_dir=options.data_dir,
    )
    settings = PassSettings(
        batch_size_per_device=options.batch_size,
        num_threads=options.workers,
        images_per_shard=options.images_per_shard,
    )
    with stoppable():
        manifest, skipped = tokenize(
            tokenizer,
            source,
            options.out,
            crops=options.random_crops or options.crops or "ten",
            seed=options.seed,
            settings=settings,
            source_name=options.data,
            split=options.split,
        )
    if skipped.reasons:
        print(skipped.report())
    print(f"{manifest['count']} images, {manifest['crops']} crop(s) each -> {options.out}")
