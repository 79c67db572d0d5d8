"""`fqgan evaluate`."""

from pathlib import Path

from fqgan_jax.cli.arguments import (
    MODEL,
    SOURCE,
    add_batch_size,
    add_data_dir,
    add_sampling,
    out_folder,
    positive,
    sampling_choices,
)
from fqgan_jax.errors import UserError

HELP = "Measure images, a tokenizer's reconstructions or a generator's samples (FID and others); prints a table."
EXAMPLES = """\
  fqgan evaluate --data samples --reference VIRTUAL_imagenet256_labeled.npz --out samples.json
  fqgan evaluate --data imagenet/val --size 256 --save-statistics imagenet_val_256.npz
  fqgan evaluate --checkpoint runs/tokenizer --data imagenet/val --reference imagenet_val_256.npz --out rfid.json
  fqgan evaluate --checkpoint runs/tokenizer --data photos --report report --runs runs/k2 runs/k4
  fqgan evaluate --checkpoint runs/generator --tokenizer runs/tokenizer --count 50000 \\
      --reference VIRTUAL_imagenet256_labeled.npz --guidance 2.0 --out gfid.json
FID needs the weights of Inception, LPIPS those of VGG16: fqgan weights fetch inception-fid vgg16 lpips-vgg16"""

IMAGES = f"{SOURCE}; or an .npz with arr_0 (uint8)"


def add_arguments(parser) -> None:
    parser.add_argument("--checkpoint", help=f"tokenizer, or with --tokenizer a generator: {MODEL}")
    parser.add_argument("--tokenizer", help=f"tokenizer that wrote the generator's codes: {MODEL}")
    parser.add_argument("--data", help=f"images to measure, or to reconstruct: {IMAGES}")
    split = "of a source (default: validation where the source has its own, else all)"
    parser.add_argument("--split", choices=("all", "train", "validation"), help=split)
    parser.add_argument(
        "--reference", help=f"{IMAGES}, or an .npz of statistics (mu, sigma); default for a tokenizer: the same images"
    )
    parser.add_argument("--reference-split", choices=("all", "train", "validation"), help=split)
    add_data_dir(parser)
    parser.add_argument("--size", type=positive, help="side of the centre crops (default: the model's, or the images')")
    parser.add_argument("--count", type=positive, help="images, the first ones (default: all); samples to draw")
    add_sampling(parser)
    parser.add_argument(
        "--inception", type=Path, metavar="FILE", help="Inception's published file (default: the cache's)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="numbers and their protocol")
    parser.add_argument(
        "--save-statistics", type=Path, metavar="FILE.npz", help="of the measured images, for later use as --reference"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FOLDER", help="for pictures, and report.html with all in one file"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="work folders whose curves it overlays",
    )
    add_batch_size(parser, 64)


def run(options) -> None:
    if not (options.data or options.tokenizer):
        raise UserError("There is nothing to measure: give --data, or --checkpoint and --tokenizer of a generator.")
    if options.tokenizer and not options.checkpoint:
        raise UserError("--tokenizer belongs to a generator: give the generator with --checkpoint.")
    if options.tokenizer and options.data:
        raise UserError("A generator's samples need no --data: give what they are compared with as --reference.")
    if options.tokenizer and not options.count:
        raise UserError("The number of samples is missing: give --count (papers draw 50000).")
    if options.runs and not options.report:
        raise UserError("--runs is for the report's curves: give --report too.")
    logs = _logs(options)
    for path in filter(None, (options.out, options.save_statistics, options.report and options.report / "report.html")):
        out_folder(path.parent)

    from fqgan_jax.evaluation.networks import load_networks
    from fqgan_jax.evaluation.reference import save_statistics
    from fqgan_jax.pictures.report import write_evaluation_report
    from fqgan_jax.sharding.processes import is_first

    frozen = load_networks(inception=options.inception, lpips=bool(options.checkpoint and options.data))
    if options.save_statistics and frozen.inception is None:
        raise UserError(frozen.missing["inception"])
    if not is_first():  # of many processes one writes
        options.out = options.save_statistics = options.report = None
    measure = _generator if options.tokenizer else _tokenizer if options.checkpoint else _images
    measured, pictures = measure(options, frozen)
    evaluation = measured.evaluation
    print(evaluation.table())
    if options.out:
        evaluation.write(options.out)
        print(f"Numbers and protocol -> {options.out}")
    if options.save_statistics:
        save_statistics(options.save_statistics, measured.features, evaluation.protocol)
        print(f"Statistics of {len(measured.features)} images -> {options.save_statistics}")
    if options.report:
        pictures |= _curves(logs, options.report / "curves.png")
        evaluation.write(options.report / "evaluation.json")
        write_evaluation_report(options.report / "report.html", evaluation, pictures)
        print(f"Report -> {options.report / 'report.html'}")


def _images(options, frozen):
    from fqgan_jax.evaluation.image_set import open_images
    from fqgan_jax.evaluation.images import evaluate_images

    images = open_images(
        options.data, split=options.split, size=options.size, limit=options.count, data_dir=options.data_dir
    )
    measured = evaluate_images(
        images,
        reference=_reference(options, frozen, images.size),
        networks=frozen,
        batch_size=options.batch_size,
    )
    print(images.skipped.report(), end="\n" * bool(images.skipped.reasons))
    return measured, {}


def _tokenizer(options, frozen):
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.evaluation.image_set import open_images
    from fqgan_jax.evaluation.tokenizer import evaluate_tokenizer
    from fqgan_jax.pictures.pictures import tokenizer_pictures

    tokenizer = load_tokenizer(options.checkpoint)
    size = options.size or tokenizer.image_size
    images = open_images(options.data, split=options.split, size=size, limit=options.count, data_dir=options.data_dir)
    reference = _reference(options, frozen, images.size)
    measured = evaluate_tokenizer(
        tokenizer, images, reference=reference, networks=frozen, batch_size=options.batch_size
    )
    print(images.skipped.report(), end="\n" * bool(images.skipped.reasons))
    return measured, tokenizer_pictures(tokenizer, images, measured, options.report) if options.report else {}


def _generator(options, frozen):
    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.evaluation.generator import evaluate_generator
    from fqgan_jax.pictures.pictures import generator_pictures

    generator, tokenizer = load_generator(options.checkpoint), load_tokenizer(options.tokenizer)
    generator.check_tokenizer(tokenizer)
    reference = _reference(options, frozen, options.size or tokenizer.image_size)
    measured = evaluate_generator(
        generator,
        tokenizer,
        count=options.count,
        seed=options.seed,
        sampling=sampling_choices(options),
        reference=reference,
        networks=frozen,
        batch_size=options.batch_size,
    )
    return measured, generator_pictures(generator, tokenizer, measured, options.report) if options.report else {}


def _reference(options, frozen, size):
    """What to compare with, where something is given and features can be taken."""
    from fqgan_jax.evaluation.reference import open_reference

    if not options.reference or frozen.inception is None:
        return None
    return open_reference(
        options.reference,
        frozen.inception,
        size=size,
        batch_size=options.batch_size,
        split=options.reference_split,
        data_dir=options.data_dir,
    )


def _logs(options) -> dict[str, list[dict]]:
    """What the given runs logged, and the measured one where it is a work folder."""
    from fqgan_jax.checkpoints import CheckpointName
    from fqgan_jax.training.logging import read_log

    logs = {str(folder): read_log(folder) for folder in options.runs}
    for folder, lines in logs.items():
        if not lines:
            raise UserError(f"{folder} is no work folder of fqgan train with a log: leave it out of --runs.")
    measured = read_log(CheckpointName.parse(options.checkpoint).workdir) if options.checkpoint else []
    return ({options.checkpoint: measured} if measured else {}) | logs


def _curves(logs: dict[str, list[dict]], path: Path) -> dict[Path, str]:
    from fqgan_jax.pictures.pictures import save_overlaid_curves

    if not logs:
        return {}
    save_overlaid_curves(logs, path)
    return {path: "Training curves."}
