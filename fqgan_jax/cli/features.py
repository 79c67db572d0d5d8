"""`fqgan features`."""

from fqgan_jax.cli.arguments import (
    add_batch_size,
    add_data,
    add_image_size,
    add_out,
    add_pace,
    add_seed,
    add_validation_fraction,
    positive,
    stoppable,
)

MANY_PROCESSES = True
HELP = "Write frozen teachers' features of a dataset, so that training needs no teacher; resumable after a stop."
EXAMPLES = """\
  fqgan features --teacher clip-vit-large-patch14 --data /data/imagenet --augmentations 10 --out /data/features
  fqgan features --teacher dinov2-small --teacher clip-vit-base-patch16 --data /data/records --out /data/features
  fqgan train --config configs/tokenizer_imagenet.py --workdir runs/dual \\
      --config.data.source=/data/imagenet --config.data.features=/data/features"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan features`."""
    parser.add_argument(
        "--teacher", action="append", required=True, metavar="NAME", help="as configs name it; repeatable"
    )
    add_data(parser)
    add_validation_fraction(parser)
    add_out(parser, "folder for the feature cache: 4 bytes a number, teacher's width times augmentations an image")
    parser.add_argument(
        "--augmentations",
        type=positive,
        default=4,
        metavar="R",
        help="random training crops of each image, of which training takes one at a time (default: %(default)s)",
    )
    add_image_size(parser, "the crops")
    add_seed(parser, "of the augmentations")
    parser.add_argument("--full-decode", action="store_true", help="as data.full_decode of the config that uses them")
    add_batch_size(parser, 64, "crops at a time on each device")
    add_pace(parser)


def run(options) -> None:
    """Writes the feature cache and prints what was skipped."""
    from fqgan_jax.caches.extract_features import extract_features
    from fqgan_jax.caches.write_shards import PassSettings
    from fqgan_jax.data.sources import open_source

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
        manifest, skipped = extract_features(
            options.teacher,
            source,
            options.out,
            augmentations=options.augmentations,
            image_size=options.image_size,
            seed=options.seed,
            full_decode=options.full_decode,
            settings=settings,
            source_name=options.data,
            split=options.split,
        )
    if skipped.reasons:
        print(skipped.report())
    num_images = manifest["images"] - len(skipped.reasons)
    print(
        f"{num_images} images, {options.augmentations} augmentation(s) each, {manifest['bytes'] / 1e6:.1f} MB "
        f"-> {options.out}"
    )
