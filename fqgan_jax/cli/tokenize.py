"""`fqgan tokenize`."""

from fqgan_jax.cli.arguments import add_batch_size, add_checkpoint, add_data, add_out

HELP = "Write a dataset's codes, from which a generator is trained."
EXAMPLES = """\
  fqgan tokenize --checkpoint runs/tokenizer --data /data/imagenet --out runs/codes
  fqgan tokenize --checkpoint runs/tokenizer --data photos --crops center --out runs/codes"""


def add_arguments(parser) -> None:
    add_checkpoint(parser, "tokenizer")
    add_data(parser)
    add_out(parser, "folder for the code cache")
    parser.add_argument(
        "--crops",
        default="ten",
        choices=("ten", "center"),
        help="ten: corners, centre and their mirror images of a 1.1 times larger square, as published (default); "
        "center: one",
    )
    add_batch_size(parser, 64)


def run(options) -> None:
    from fqgan_jax.api import load_tokenizer
    from fqgan_jax.data.sources import open_source
    from fqgan_jax.tokenizing import tokenize

    tokenizer = load_tokenizer(options.checkpoint)
    source = open_source(options.data, options.split, data_dir=options.data_dir)
    manifest, skipped = tokenize(tokenizer, source, options.out, options.crops, options.batch_size)
    if skipped.reasons:
        print(skipped.report())
    print(f"{manifest.count} images, {manifest.crops} crop(s) each -> {options.out}")
