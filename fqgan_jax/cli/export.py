"""`fqgan export`."""

from pathlib import Path

from fqgan_jax.cli.arguments import add_checkpoint, add_out, positive
from fqgan_jax.errors import UserError

HELP = "Write a tokenizer or a generator for another framework, with a README that loads it there."
EXAMPLES = """\
  fqgan export --checkpoint runs/tokenizer --format native --out tokenizer
  fqgan export --checkpoint runs/tokenizer --format torch --with-ema --with-discriminator --out tokenizer_torch
  fqgan export --checkpoint runs/generator --format stablehlo --out generator_stablehlo
  fqgan export --checkpoint runs/tokenizer --format onnx --batch-size 8 --out tokenizer_onnx"""


def add_arguments(parser) -> None:
    add_checkpoint(parser, "tokenizer or generator")
    parser.add_argument(
        "--format",
        required=True,
        choices=("native", "torch", "safetensors", "stablehlo", "onnx"),
        help="native: for fqgan_jax; torch, safetensors: tensors with the published names; stablehlo: programs for "
        "JAX alone, any batch size, CPU, GPU and TPU; onnx: a tokenizer's encoder and decoder",
    )
    add_out(parser, "folder for the files; it must not exist yet")
    parser.add_argument(
        "--with-ema",
        action="store_true",
        help="torch, safetensors: the parameters as trained and their moving average (otherwise the average alone, "
        "where one was kept)",
    )
    parser.add_argument(
        "--with-discriminator",
        action="store_true",
        help="torch, safetensors: the discriminator too, for those who train on",
    )
    parser.add_argument("--batch-size", type=positive, help="onnx: images at a time, always as many (default: 1)")


def run(options) -> None:
    from fqgan_jax.export.exporting import export_checkpoint

    if options.batch_size and options.format != "onnx":
        raise UserError(f"--batch-size is for --format onnx: {options.format} takes any number of images.")
    names = export_checkpoint(
        Path(options.checkpoint),
        options.format,
        options.out,
        with_ema=options.with_ema,
        with_discriminator=options.with_discriminator,
        batch_size=options.batch_size or 1,
    )
    print(f"{', '.join(names)} -> {options.out}")
