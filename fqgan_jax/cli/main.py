"""Entry point of `fqgan`: finds the subcommand, prints the user's errors as sentences."""

import argparse
import importlib
import logging
import os
import sys
import traceback
import warnings
from functools import partialmethod

from absl import logging as absl_logging

from fqgan_jax.cli.arguments import add_processes
from fqgan_jax.errors import UserError
from fqgan_jax.files import is_full_disk

COMMANDS = (
    *("demo", "data", "prepare", "train", "reconstruct", "tokenize", "sample", "evaluate", "ablate", "export"),
    *("features", "weights", "plan", "bench"),
)
WITH_OVERRIDES = ("train", "ablate", "plan", "bench")  # take --config.FIELD=VALUE
ON_MANY_PROCESSES = ("train", "evaluate", "features", "tokenize", "sample")  # one command, started on every host


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each module brings HELP, EXAMPLES, `add_arguments` and `run`."""
    parser = argparse.ArgumentParser(
        prog="fqgan", description="Factorized image tokenizers and their generators in JAX."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"fqgan_jax.cli.{name}")
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(subparser)
        if name in ON_MANY_PROCESSES:
            add_processes(subparser)
        subparser.set_defaults(run=module.run, overrides=[])
    return parser


def _is_not_raised_too(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _without_closed_loops(unraisable) -> None:
    """Python's report of errors that cannot be raised, but not of tensorstore's writes that end after a failed one."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; 0 when done, 2 with one sentence on bad input."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not (options.command in WITH_OVERRIDES and all(part.startswith("--config.") for part in rest)):
        parser.error(f"unknown argument {rest[0]!r} for fqgan {options.command} (see fqgan {options.command} --help)")
    options.overrides = rest
    # A normal run shows the project's own lines only.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    # Where a checkpoint cannot be written, orbax raises one error, and prints it and those of all its other writes too.
    absl_logging.get_absl_logger().addFilter(_is_not_raised_too)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize")
    sys.unraisablehook = _without_closed_loops
    logging.getLogger("fqgan_jax").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="orbax")
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in images that are read all the same
    many = False
    try:
        many = options.command in ON_MANY_PROCESSES and _start_processes(options)
        options.run(options)
    except UserError as error:
        print(f"fqgan {options.command}: {error}", file=sys.stderr)
        return _leave(2) if many else 2
    except Exception as error:
        full = isinstance(error, OSError) and is_full_disk(error)
        if full:
            where = f" ({error.filename})" if error.filename else ""
            print(f"fqgan {options.command}: {full}{where}: free some space and try again.", file=sys.stderr)
            return _leave(2) if many else 2
        if not many:
            raise
        traceback.print_exc()
        return _leave(1)
    return 0


def _start_processes(options: argparse.Namespace) -> bool:
    """Whether this is one process of many, which are started then; all but the first print nothing but errors."""
    from fqgan_jax.sharding import processes

    processes.start(coordinator=options.coordinator, num_processes=options.num_processes, process_id=options.process_id)
    if not processes.are_many():
        return False
    if not processes.is_first():
        from tqdm import tqdm

        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
        logging.getLogger("fqgan_jax").setLevel(logging.ERROR)
        tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    return True


def _leave(code: int) -> int:
    from fqgan_jax.sharding import processes

    processes.leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
