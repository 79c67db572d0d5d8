"""`fqgan bench`."""

from fqgan_jax.cli.arguments import add_config, positive
from fqgan_jax.errors import UserError

HELP = "Time a part on the devices here: with random frozen networks on synthetic data, or the loader on your images."
EXAMPLES = """\
  fqgan bench tokenizer-train --config.data.batch_size=16
  fqgan bench tokenizer-train --config configs/demo_tokenizer.py:k=8,teacher=none --steps 20
  fqgan bench quantizer --config configs/tokenizer_imagenet.py:k=3 --config.data.batch_size=32
  fqgan bench loader --data FOLDER --config.data.batch_size=32 --config.data.num_threads=2 --steps 30"""


def add_arguments(parser) -> None:
    parser.add_argument("part", choices=("tokenizer-train", "quantizer", "loader"), help="what is measured")
    parser.add_argument("--data", help="for loader: a folder of images with one subfolder a class")
    add_config(parser, "configs/tokenizer_imagenet.py")
    parser.add_argument("--steps", type=positive, default=5, help="steps that are timed (default: %(default)s)")


def run(options) -> None:
    from fqgan_jax.build import tokenizer_fields
    from fqgan_jax.config import load_config
    from fqgan_jax.performance.bench import bench_quantizer, bench_training

    config = load_config(options.config, options.overrides)
    if config.task != "tokenizer":
        raise UserError(
            f"{options.config} trains a {config.task}: fqgan bench {options.part} needs a tokenizer's config."
        )
    if options.part == "loader":
        values = _bench_loader(options, config)
    elif options.part == "quantizer":
        fields = tokenizer_fields(config)
        tokens = config.data.batch_size * fields["grid"][0] * fields["grid"][1]
        sizes = (fields["num_codebooks"], fields["codebook_size"], fields["code_dim"], tokens)
        values = bench_quantizer(*sizes, config.model.chunk_tokens, options.steps)
    else:
        values = bench_training(config, options.steps)
    for name, value in values.items():
        print(f"{name:<36} {value:.4g}")


def _bench_loader(options, config) -> dict[str, float]:
    from pathlib import Path

    from fqgan_jax.build import check_reading
    from fqgan_jax.data.folder import ImageFolder
    from fqgan_jax.performance.bench_loader import bench_loader

    if not options.data:
        raise UserError("fqgan bench loader needs --data: a folder of images with one subfolder a class.")
    check_reading(config.data)
    return bench_loader(ImageFolder(Path(options.data), "train", 0), config.data, options.steps)
