"""`fqgan data`."""

from itertools import islice

from fqgan_jax.cli.arguments import (
    SOURCE,
    add_data_dir,
    add_image_size,
    add_seed,
    add_split,
    add_workers,
    out_folder,
    positive,
)
from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path

HELP = "Look at a dataset: counts, sizes, classes, damaged files, and a picture of one augmented training batch."
EXAMPLES = """\
  fqgan data /data/imagenet
  fqgan data photos --out batch.png --image-size 64
  fqgan data tfds:cifar10 --data-dir /data/tfds --split validation"""

SHOWN_CLASSES = 20
CROPS_PER_ROW = 8


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan data`."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    add_split(parser)
    add_data_dir(parser)
    add_workers(parser)
    parser.add_argument("--out", type=as_path, metavar="FILE.png", help="picture of one batch as training sees it")
    add_image_size(parser, "its crops")
    parser.add_argument("--batch-size", type=positive, default=32, help="crops in it (default: %(default)s)")
    add_seed(parser, "of order and augmentation")


def run(options) -> None:
    """Prints what a source holds and, if asked to, draws a training batch."""
    from fqgan_jax.data.preparation.pool import Pool
    from fqgan_jax.data.preparation.survey import survey
    from fqgan_jax.data.sources import open_source

    source = open_source(options.source, options.split, data_dir=options.data_dir)
    found = survey(source, Pool(options.workers, processes=options.processes))
    for title, value in _table(source, found):
        print(f"{title:<16}{value}")
    for name, reason in found.damaged.items():
        print(f"damaged: {name}: {reason}")
    if not found.sizes:
        raise UserError(f"Not one of the {len(source)} images of {options.source} can be read.")
    if options.out:
        out_folder(options.out.parent)
        _save_batch(source, options)
        print(f"{options.batch_size} training crops -> {options.out}")


def _table(source, found) -> list[tuple[str, str]]:
    import numpy as np

    rows = [
        ("readable images", f"{len(found.sizes)} of {len(source)}"),
        ("size", f"{found.bytes / 1e6:.1f} MB"),
        ("formats", ", ".join(f"{name} {count}" for name, count in found.formats.most_common())),
    ]
    if found.sizes:
        table = found.size_table()
        for title, values in (("width", table[:, 0]), ("height", table[:, 1]), ("shorter side", table.min(1))):
            rows.append((title, f"{values.min()} to {values.max()}, median {np.median(values):g}"))
    counts = {name: found.labels[label] for label, name in enumerate(source.class_names)}
    rows.append(("classes", f"{len(counts)}, of {min(counts.values())} to {max(counts.values())} images"))
    rows += [("", f"{name}: {count}") for name, count in islice(counts.items(), SHOWN_CLASSES)]
    if len(counts) > SHOWN_CLASSES:
        rows.append(("", f"and {len(counts) - SHOWN_CLASSES} more"))
    return rows


def _save_batch(source, options) -> None:
    from fqgan_jax.data.loader import image_batches
    from fqgan_jax.data.pixels import to_float
    from fqgan_jax.data.skipping import Skipped
    from fqgan_jax.data.stream import Stream
    from fqgan_jax.pictures.figures import image_rows, save_picture

    stream = Stream(batch_size=options.batch_size, seed=options.seed)
    batches = image_batches(source, stream, image_size=options.image_size, skipped=Skipped())
    crops = to_float(next(batches)["image"])
    rows = [crops[start : start + CROPS_PER_ROW] for start in range(0, len(crops), CROPS_PER_ROW)]
    try:
        save_picture(image_rows(rows), options.out)
    except (OSError, ValueError) as error:  # ValueError: the file extension is of no picture format
        raise UserError(f"{options.out} cannot be written: {error}. Choose another --out.") from error
