"""Entry point of `fqgan`: finds the subcommand, prints the user's errors as sentences."""

import argparse
import importlib
import logging
import os
import sys
import traceback
import warnings

from absl import logging as absl_logging

from fqgan_jax.cli.arguments import add_plugins, add_processes
from fqgan_jax.config.plugins import load_plugins
from fqgan_jax.errors import UserError
from fqgan_jax.files import is_full_disk

COMMANDS = (
    *("demo", "data", "prepare", "train", "reconstruct", "tokenize", "sample", "evaluate", "ablate", "export"),
    *("features", "weights", "plan", "bench", "check"),
)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all subcommands.

    Each module brings HELP, EXAMPLES, `add_arguments` and `run`; `OVERRIDES = True` if it takes
    `--config.FIELD=VALUE`, and `MANY_PROCESSES = True` if it is started on every host of a cluster.
    """
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
        add_plugins(subparser)
        many_processes = getattr(module, "MANY_PROCESSES", False)
        if many_processes:
            add_processes(subparser)
        subparser.set_defaults(
            run=module.run, many_processes=many_processes, takes_overrides=getattr(module, "OVERRIDES", False)
        )
    return parser


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parses a command line; the `--config.FIELD=VALUE` of a command that takes them are collected in `overrides`."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not (options.takes_overrides and all(part.startswith("--config.") for part in rest)):
        parser.error(f"unknown argument {rest[0]!r} for fqgan {options.command} (see fqgan {options.command} --help)")
    return argparse.Namespace(**vars(options), overrides=rest)


def _is_not_raised_too(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _without_closed_loops(unraisable) -> None:
    """Python's report of errors that cannot be raised, but not of tensorstore's writes that end after a failed one."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _set_up_logging() -> None:
    """Makes a normal run show the project's own lines only."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fqgan_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    # If a checkpoint cannot be written, orbax raises one error, and prints it and those of all its other writes too.
    absl_logging.get_absl_logger().addFilter(_is_not_raised_too)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize")
    sys.unraisablehook = _without_closed_loops
    warnings.filterwarnings("ignore", module="orbax")
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in images that are read all the same


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Returns:
      0 on success, 2 after bad input, which is explained in one sentence.
    """
    options = _parse(arguments)
    _set_up_logging()
    many = False
    try:
        many = options.many_processes and _start_processes(options)
        load_plugins(options.plugin)
        options.run(options)
    except UserError as error:
        print(f"fqgan {options.command}: {error}", file=sys.stderr)
        return _leave(2) if many else 2
    except Exception as error:
        full = is_full_disk(error) if isinstance(error, OSError) else ""
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
    """Starts the processes of a run on many hosts; all but the first print errors only.

    Returns:
      Whether there is more than one process.
    """
    from fqgan_jax.sharding import processes

    processes.start(coordinator=options.coordinator, num_processes=options.num_processes, process_id=options.process_id)
    if not processes.are_many():
        return False
    if not processes.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)
        logging.getLogger("fqgan_jax").setLevel(logging.ERROR)
        os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when it is imported, which no command does before this
    return True


def _leave(code: int) -> int:
    from fqgan_jax.sharding import processes

    processes.leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
