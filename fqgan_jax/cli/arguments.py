"""Flags that mean the same in every command."""

import argparse
from pathlib import Path

from fqgan_jax.errors import UserError

MODEL = "a work folder of fqgan train, an export folder or a published file (.safetensors, .pt)"


def add_checkpoint(parser: argparse.ArgumentParser, what: str, flag: str = "--checkpoint") -> None:
    """A model to read."""
    parser.add_argument(flag, required=True, help=f"{what}: {MODEL}")


def add_data(parser: argparse.ArgumentParser) -> None:
    """An image source and its split."""
    parser.add_argument(
        "--data", required=True, help='a folder of images with one subfolder a class, or "photos" (bundled)'
    )
    parser.add_argument("--split", default="train", choices=("train", "validation"), help="default: %(default)s")


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    """What the command writes."""
    parser.add_argument("--out", required=True, type=Path, help=what)


def add_batch_size(parser: argparse.ArgumentParser, default: int) -> None:
    """Images at a time."""
    parser.add_argument("--batch-size", type=positive, default=default, help="images at a time (default: %(default)s)")


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def numbers(kind: type):
    """A parser of one value, or of one per sub-codebook with commas between."""

    def parse(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = f"{kind.__name__}[,...]"
    return parse


def out_folder(path: Path) -> Path:
    """Makes a folder for results.

    Raises:
      UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {path} cannot be made: {error.strerror}. Choose another --out.") from error
    return path
