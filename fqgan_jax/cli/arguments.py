"""Flags that mean the same in every command."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fqgan_jax.errors import UserError

SOURCE = (
    "a folder of images with one subfolder a class, a folder that fqgan prepare wrote, tfds:NAME[:VERSION], tar files "
    "in WebDataset layout, or photos (bundled)"
)
MODEL = (
    "a work folder of fqgan train (WORKDIR@best or WORKDIR@STEP for another checkpoint than the newest), an export "
    "folder or a published file (.safetensors, .pt)"
)


def add_checkpoint(parser: argparse.ArgumentParser, what: str, flag: str = "--checkpoint") -> None:
    """Adds a model to read."""
    parser.add_argument(flag, required=True, help=f"{what}: {MODEL}")


def add_codebooks(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Adds how many sub-codebooks of a nested tokenizer take part; with `many`, several numbers one after the other."""
    several = "; several, as in 1,2,4: a table and a plot of quality against bits" if many else ""
    parser.add_argument(
        "--codebooks",
        type=_several(positive) if many else positive,
        metavar="k[,k...]" if many else "k",
        help=f"the first k sub-codebooks alone, of a tokenizer trained with model.nested (default: all){several}",
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
        help="a Python file of yours that adds losses, teachers, image sources, … (repeatable)",
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
    parser.add_argument("--data", required=True, help=SOURCE)
    add_data_dir(parser)
    add_split(parser)


def add_split(parser: argparse.ArgumentParser) -> None:
    """Adds the part of a source."""
    parser.add_argument("--split", default="train", choices=("train", "validation"), help="default: %(default)s")


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds the folder of prepared tensorflow-datasets."""
    parser.add_argument(
        "--data-dir", help="folder of prepared tensorflow-datasets, for tfds:NAME (default: their own, TFDS_DATA_DIR)"
    )


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
    parser.add_argument("--seed", type=int, default=0, help=f"{what} (default: %(default)s)")


@contextmanager
def stoppable() -> Iterator[None]:
    """Ends a resumable command on Ctrl-C with a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped; the same command continues from here.", file=sys.stderr)
        raise SystemExit(130) from None


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds the processes of a run on many hosts, which SLURM, TPU pods and others set themselves."""
    group = parser.add_argument_group(
        "many processes", "needed only if SLURM, Open MPI, a TPU pod or another launcher does not set them"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, a free port")
    group.add_argument("--num-processes", type=positive, metavar="N", help="processes that run this command")
    group.add_argument("--process-id", type=int, metavar="I", help="number of this one, from 0")


def fraction(text: str) -> float:
    """Parses a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the path that the command writes."""
    parser.add_argument("--out", required=True, type=Path, help=what)


def add_batch_size(parser: argparse.ArgumentParser, default: int, what: str = "images at a time") -> None:
    """Adds the batch size."""
    parser.add_argument("--batch-size", type=positive, default=default, help=f"{what} (default: %(default)s)")


def positive(text: str) -> int:
    """Parses a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def numbers(kind: type):
    """Returns a parser of one value, or of one per sub-codebook with commas between."""

    def parse(text: str) -> list:
        return [kind(part) for part in text.split(",")]

    parse.__name__ = f"{kind.__name__}[,...]"
    return parse


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the sampling of a generator's codes; see `fqgan_jax.models.sampling.SamplingOptions`."""
    parser.add_argument("--seed", type=int, default=0, help="of the samples; default: %(default)s")
    each = "; one value, or one per sub-codebook with commas"
    parser.add_argument("--guidance", type=numbers(float), default=[2.0], help=f"default: 2.0{each}")
    parser.add_argument("--temperature", type=numbers(float), default=[1.0], help=f"0 is greedy; default: 1.0{each}")
    parser.add_argument("--top-k", type=numbers(int), default=[0], help=f"0: all (default){each}")
    parser.add_argument("--top-p", type=numbers(float), default=[1.0], help=f"1: all (default){each}")


def sampling_choices(options: argparse.Namespace) -> dict[str, list]:
    """Returns the flags of `add_sampling` as arguments of `Generator.sample`."""
    return {name: getattr(options, name) for name in ("guidance", "temperature", "top_k", "top_p")}


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
