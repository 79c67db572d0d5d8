"""`fqgan export`."""

from fqgan_jax.cli.arguments import add_checkpoint, add_out, positive
from fqgan_jax.export import formats
from fqgan_jax.storage import as_path

HELP = "Write a tokenizer or a generator for another framework, with a README that loads it there."
EXAMPLES = """\
  fqgan export --checkpoint runs/tokenizer --format native --out tokenizer
  fqgan export --checkpoint runs/tokenizer --format torch --with-ema --with-discriminator --out tokenizer_torch
  fqgan export --checkpoint runs/generator --format stablehlo --out generator_stablehlo
  fqgan export --checkpoint runs/tokenizer --format onnx --batch-size 8 --out tokenizer_onnx"""


def add_arguments(parser) -> None:
    """Adds the command's flags; the formats are rows of `export.formats`."""
    named_sets = ", ".join(name for name, row in formats.items() if row.has_named_sets)
    fixed_batch = ", ".join(name for name, row in formats.items() if row.has_batch_size)
    add_checkpoint(parser, "tokenizer or generator")
    parser.add_argument(
        "--format", required=True, help="; ".join(f"{name}: {row.help}" for name, row in formats.items())
    )
    add_out(parser, "folder for the files; it must not exist yet")
    parser.add_argument(
        "--with-ema",
        action="store_true",
        help=f"{named_sets}: the parameters as trained and their moving average (default: the average alone, if the "
        "run keeps one)",
    )
    parser.add_argument(
        "--with-discriminator",
        action="store_true",
        help=f"{named_sets}: the discriminator too, to continue its training elsewhere",
    )
    parser.add_argument(
        "--batch-size", type=positive, help=f"{fixed_batch}: images of each call, always as many (default: 1)"
    )


def run(options) -> None:
    """Writes the folder and prints the names of its files."""
    formats.check(options.format, "--format")
    from fqgan_jax.export.exporting import export_checkpoint

    names = export_checkpoint(
        as_path(options.checkpoint),
        options.format,
        options.out,
        with_ema=options.with_ema,
        with_discriminator=options.with_discriminator,
        batch_size=options.batch_size,
    )
    print(f"{', '.join(names)} -> {options.out}")
