"""`fqgan evaluate`."""

from pathlib import Path

from fqgan_jax.cli.arguments import MODEL, add_batch_size, numbers, out_folder, positive
from fqgan_jax.errors import UserError

HELP = "Measure images, a tokenizer's reconstructions or a generator's samples (FID and others); prints a table."
EXAMPLES = """\
  fqgan evaluate --data samples --reference VIRTUAL_imagenet256_labeled.npz --out samples.json
  fqgan evaluate --data imagenet/val --size 256 --save-statistics imagenet_val_256.npz
  fqgan evaluate --checkpoint runs/tokenizer --data imagenet/val --reference imagenet_val_256.npz --out rfid.json
  fqgan evaluate --checkpoint runs/generator --tokenizer runs/tokenizer --count 50000 \\
      --reference VIRTUAL_imagenet256_labeled.npz --guidance 2.0 --out gfid.json
FID needs the weights of Inception, LPIPS those of VGG16: fqgan weights fetch inception-fid vgg16 lpips-vgg16"""

IMAGES = 'a folder of images, an .npz with arr_0 (uint8), or "photos" (bundled)'


def add_arguments(parser) -> None:
    parser.add_argument("--checkpoint", help=f"tokenizer, or with --tokenizer a generator: {MODEL}")
    parser.add_argument("--tokenizer", help=f"tokenizer that wrote the generator's codes: {MODEL}")
    parser.add_argument("--data", help=f"images to measure, or to reconstruct: {IMAGES}")
    split = "of a folder or photos (default: validation where the source has its own, else all)"
    parser.add_argument("--split", choices=("all", "train", "validation"), help=split)
    parser.add_argument(
        "--reference", help=f"{IMAGES}, or an .npz of statistics (mu, sigma); default for a tokenizer: the same images"
    )
    parser.add_argument("--reference-split", choices=("all", "train", "validation"), help=split)
    parser.add_argument("--size", type=positive, help="side of the centre crops (default: the model's, or the images')")
    parser.add_argument("--count", type=positive, help="images, the first ones (default: all); samples to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the samples; default: %(default)s")
    each = "; one value, or one per sub-codebook with commas"
    parser.add_argument("--guidance", type=numbers(float), default=[2.0], help=f"default: 2.0{each}")
    parser.add_argument("--temperature", type=numbers(float), default=[1.0], help=f"0 is greedy; default: 1.0{each}")
    parser.add_argument("--top-k", type=numbers(int), default=[0], help=f"0: all (default){each}")
    parser.add_argument("--top-p", type=numbers(float), default=[1.0], help=f"1: all (default){each}")
    parser.add_argument(
        "--inception", type=Path, metavar="FILE", help="Inception's published file (default: the cache's)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="numbers and their protocol")
    parser.add_argument(
        "--save-statistics", type=Path, metavar="FILE.npz", help="of the measured images, for later use as --reference"
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
    for path in filter(None, (options.out, options.save_statistics)):
        out_folder(path.parent)

    from fqgan_jax.evaluation.frozen import load_frozen
    from fqgan_jax.evaluation.reference import save_statistics

    frozen = load_frozen(options.inception, lpips=bool(options.checkpoint and options.data))
    if options.save_statistics and frozen.inception is None:
        raise UserError(frozen.missing["inception"])
    measure = _generator if options.tokenizer else _tokenizer if options.checkpoint else _images
    evaluation, features, skipped = measure(options, frozen)
    print(evaluation.table())
    if skipped:
        print(skipped)
    if options.out:
        evaluation.write(options.out)
        print(f"Numbers and protocol -> {options.out}")
    if options.save_statistics:
        save_statistics(options.save_statistics, features, evaluation.protocol)
        print(f"Statistics of {len(features)} images -> {options.save_statistics}")


def _images(options, frozen):
    from fqgan_jax.evaluation.image_evaluation import evaluate_images
    from fqgan_jax.evaluation.images import open_images

    images = open_images(options.data, options.split, options.size, options.count)
    reference = _reference(options, frozen, images.size)
    return *evaluate_images(images, reference, frozen, options.batch_size), images.skipped.report()


def _tokenizer(options, frozen):
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.evaluation.images import open_images
    from fqgan_jax.evaluation.tokenizer_evaluation import evaluate_tokenizer

    tokenizer = load_tokenizer(options.checkpoint)
    images = open_images(options.data, options.split, options.size or tokenizer.image_size, options.count)
    reference = _reference(options, frozen, images.size)
    return *evaluate_tokenizer(tokenizer, images, reference, frozen, options.batch_size), images.skipped.report()


def _generator(options, frozen):
    from fqgan_jax.api import load_generator, load_tokenizer
    from fqgan_jax.evaluation.generator_evaluation import evaluate_generator

    generator, tokenizer = load_generator(options.checkpoint), load_tokenizer(options.tokenizer)
    if generator.tokenizer != tokenizer.fingerprint:
        raise UserError(
            f"The generator {options.checkpoint} was trained on codes of another tokenizer than {options.tokenizer}: "
            "name the one that wrote its codes."
        )
    reference = _reference(options, frozen, options.size or tokenizer.image_size)
    sampling = {name: getattr(options, name) for name in ("guidance", "temperature", "top_k", "top_p")}
    arguments = (generator, tokenizer, options.count, options.seed, sampling, reference, frozen, options.batch_size)
    return *evaluate_generator(*arguments), ""


def _reference(options, frozen, size):
    """What to compare with, where something is given and features can be taken."""
    from fqgan_jax.evaluation.reference import open_reference

    if not options.reference or frozen.inception is None:
        return None
    return open_reference(options.reference, options.reference_split, size, frozen.inception, options.batch_size)
