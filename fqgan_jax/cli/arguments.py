"""Flags that mean the same in every command."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fqgan_jax.errors import UserError
from fqgan_jax.storage import as_path

MOST_SAMPLES = 10**7
SOURCE = (
    "a folder of images with one subfolder a class, a folder that fqgan prepare wrote, tfds:NAME[:VERSION], tar files "
    "in WebDataset layout, or photos (bundled)"
)
MODEL = (
    "a work folder of fqgan train (WORKDIR, WORKDIR@best, WORKDIR@STEP), an export folder, a file (.safetensors, .pt), "
    "hf:OWNER/REPO[@REVISION][/FILE], or a name of fqgan weights list"
)


def add_checkpoint(parser: argparse.ArgumentParser, what: str, flag: str = "--checkpoint") -> None:
    """Adds a model to read; what it can be is said of the first one."""
    first = flag == "--checkpoint"
    parser.add_argument(flag, required=True, metavar="MODEL", help=f"{what}: {MODEL}" if first else what)


def add_codebooks(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Adds how many sub-codebooks of a nested tokenizer take part; with `many`, several numbers one after the other."""
    several = "; several: a table and a plot" if many else ""
    parser.add_argument(
        "--codebooks",
        type=_several(positive) if many else positive,
        metavar="k[,k...]" if many else "k",
        help=f"first k sub-codebooks (model.nested){several}",
    )


def _several(kind: Callable[[str], int]) -> Callable[[str], list[int]]:
    """Returns a type of arguments: values of one kind with commas between them."""

    def parse(text: str) -> list[int]:
        return [kind(part) for part in text.split(",")]

    return parse


def add_config(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds a config and its overrides, which `cli.main` collects in `overrides`."""
    shown = f" (default: {default})" if default else ""
    parser.add_argument(
        "--config",
        required=default is None,
        default=default,
        help=f"config file, with its arguments after a colon: FILE[:k=3,...]{shown}",
    )
    parser.add_argument(
        "--config.FIELD", metavar="VALUE", dest="config_field", help="change any field of the config (repeatable)"
    )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Adds files of the user's own that add rows."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="your Python file that adds losses, teachers, … (repeatable)",
    )


def add_tokenizer_config(parser: argparse.ArgumentParser) -> None:
    """Adds the tokenizer whose codes a generator takes if its config names no code cache."""
    parser.add_argument(
        "--tokenizer-config",
        default="configs/tokenizer_imagenet.py",
        help="for generators without data.codes: whose sub-codebooks and grid they take (default: %(default)s, K = 2)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds an image source and its split."""
    add_source(parser)
    add_split(parser)


def add_split(parser: argparse.ArgumentParser) -> None:
    """Adds the part of a source."""
    parser.add_argument("--split", default="train", choices=("train", "validation"), help="default: %(default)s")


def add_source(parser: argparse.ArgumentParser) -> None:
    """Adds an image source whose splits the command chooses."""
    parser.add_argument("--data", required=True, help=SOURCE)
    add_data_dir(parser)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds the folder of prepared tensorflow-datasets."""
    parser.add_argument("--data-dir", help="folder of prepared tensorflow-datasets (default: their own)")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds the threads or processes that read images."""
    add_threads(parser)
    parser.add_argument(
        "--processes", action="store_true", help="workers are processes, not threads: faster on machines of many cores"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Adds the threads that read images."""
    parser.add_argument(
        "--workers",
        type=positive,
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        help="how many images are worked on at a time (default: one a core, here %(default)s)",
    )


def add_pace(parser: argparse.ArgumentParser) -> None:
    """Adds threads and shard size of a pass over a source."""
    add_threads(parser)
    parser.add_argument(
        "--images-per-shard",
        type=positive,
        default=4096,
        metavar="N",
        help="in one file, which is done again after a stop in the middle of it (default: %(default)s)",
    )


def add_validation_fraction(parser: argparse.ArgumentParser) -> None:
    """Adds the share of a source that is kept for validation."""
    parser.add_argument(
        "--validation-fraction",
        type=fraction,
        default=0.05,
        metavar="F",
        help="of each class, kept aside if the source has no validation split (default: %(default)s)",
    )


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the seed of all randomness."""
    parser.add_argument("--seed", type=seed, default=0, help=f"{what} (default: %(default)s)")


@contextmanager
def stoppable() -> Iterator[None]:
    """Ends a resumable command on Ctrl-C with a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped; the same command continues from here.", file=sys.stderr)
        raise SystemExit(130) from None


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds the processes of a run on many hosts, which SLURM, TPU pods and others set themselves.

    The end of the help has them in one line.
    """
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--num-processes", type=positive, help=argparse.SUPPRESS)
    parser.add_argument("--process-id", type=int, help=argparse.SUPPRESS)


def fraction(text: str) -> float:
    """Parses a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the path that the command writes."""
    parser.add_argument("--out", required=True, type=as_path, help=what)


def add_batch_size(parser: argparse.ArgumentParser, default: int, what: str = "images at a time") -> None:
    """Adds the batch size."""
    parser.add_argument("--batch-size", type=positive, default=default, help=f"{what} (default: %(default)s)")


def positive(text: str) -> int:
    """Parses a whole number above 0."""
    return _whole(text, 1, 2**31 - 1)


def natural(text: str) -> int:
    """Parses a whole number from 0."""
    return _whole(text, 0, 2**31 - 1)


def count(text: str) -> int:
    """Parses a number of images to make."""
    return _whole(text, 1, MOST_SAMPLES)


def seed(text: str) -> int:
    """Parses a seed."""
    return _whole(text, 0, 2**32 - 1)


def _whole(text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text[:30]} is no whole number from {low} to {high}")
    return value


def add_image_size(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the size of crops."""
    parser.add_argument(
        "--image-size", type=image_size, default=256, help=f"side of {what}, or HEIGHTxWIDTH (default: %(default)s)"
    )


def image_size(text: str) -> int | tuple[int, int]:
    """Parses the size of crops: a side, or HEIGHTxWIDTH."""
    sides = [positive(part) for part in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text} is neither a side nor HEIGHTxWIDTH")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def numbers(kind: type):
    """Returns a parser of one value, or of one per sub-codebook with commas between."""

    def parse(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = f"{kind.__name__}[,...]"
    return parse


# Arguments of `Generator.sample` that are flags.
SAMPLING = ("guidance", "temperature", "top_k", "top_p", "min_p", "guidance_schedule")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the sampling of a generator's codes; see `fqgan_jax.models.sampling_options.SamplingOptions`."""
    add_seed(parser, "of the samples")
    group = parser.add_argument_group("sampling (one value, or one per sub-codebook with commas)")
    group.add_argument("--guidance", type=numbers(float), default=[2.0], help="default: 2.0")
    group.add_argument("--temperature", type=numbers(float), default=[1.0], help="0 is greedy; default: 1.0")
    group.add_argument("--top-k", type=numbers(int), default=[0], help="0: all (default)")
    group.add_argument("--top-p", type=numbers(float), default=[1.0], help="1: all (default)")
    group.add_argument("--min-p", type=numbers(float), default=[0.0], help="0: all (default)")
    group.add_argument(
        "--guidance-schedule",
        type=numbers(str),
        default=["constant"],
        metavar="NAME",
        help="constant (default), power_cosine:P, interval:START-STOP",
    )


def sampling_choices(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags of `add_sampling` as arguments of `Generator.sample`."""
    return {name: getattr(options, name) for name in SAMPLING}


def add_sweep(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds sampling options that take several values."""
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="OPTION=VALUES",
        help=f"{what}: guidance=1:4:0.5 (from, to, step), top_k=0,100, … (repeatable)",
    )


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
