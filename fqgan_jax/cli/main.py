"""Entry point of `fqgan`: finds the subcommand, prints the user's errors as sentences."""

import argparse
import importlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from importlib.metadata import version
from pathlib import PurePath

from absl import logging as absl_logging

from fqgan_jax.cli.arguments import add_plugins, add_processes
from fqgan_jax.cli.help import ScreenHelp
from fqgan_jax.config.plugins import load_plugins
from fqgan_jax.errors import UserError, check
from fqgan_jax.files import check_writable, is_full_disk
from fqgan_jax.storage import as_path

COMMANDS = (
    *("demo", "data", "prepare", "train", "runs", "reconstruct", "tokenize", "sample", "edit", "evaluate", "ablate"),
    *("export", "publish", "features", "weights", "plan", "bench", "check", "app"),
)

OUTPUTS = ("out", "json", "report", "save_statistics", "folder", "workdir", "write_numbers")
MANY_HOSTS = "\nmany hosts: --coordinator HOST:PORT --num-processes N --process-id I (SLURM and others set them)"
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")  # in XLA's errors, on accelerators and on CPUs
# Exit codes, as shells give them.
INTERRUPTED, CLOSED_PIPE = 130, 141


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all subcommands.

    Each module brings HELP, EXAMPLES, `add_arguments` and `run`; `OVERRIDES = True` if it takes
    `--config.FIELD=VALUE`, and `MANY_PROCESSES = True` if it is started on every host of a cluster.
    """
    parser = argparse.ArgumentParser(
        prog="fqgan", description="Factorized image tokenizers and their generators in JAX.", formatter_class=ScreenHelp
    )
    parser.add_argument("--version", action=_Versions, nargs=0, help="print the versions and exit")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"fqgan_jax.cli.{name}")
        many_processes = getattr(module, "MANY_PROCESSES", False)
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"examples:\n{module.EXAMPLES}{MANY_HOSTS if many_processes else ''}",
            formatter_class=ScreenHelp,
            allow_abbrev=False,
        )
        module.add_arguments(subparser)
        add_plugins(subparser)
        if many_processes:
            add_processes(subparser)
        subparser.set_defaults(
            run=module.run, many_processes=many_processes, takes_overrides=getattr(module, "OVERRIDES", False)
        )
    return parser


class _Versions(argparse.Action):
    """Prints what computes, and looks it up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(", ".join(f"{name} {version(name)}" for name in ("fqgan-jax", "jax", "flax")))
        parser.exit()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parses a command line; the `--config.FIELD=VALUE` of a command that takes them are collected in `overrides`."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not (options.takes_overrides and all(part.startswith("--config.") for part in rest)):
        parser.error(f"unknown argument {rest[0]!r} for fqgan {options.command} (see fqgan {options.command} --help)")
    return argparse.Namespace(**vars(options), overrides=rest)


def _is_not_raised_too(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _report_unraisable(unraisable) -> None:
    """Python's report of errors that cannot be raised, but not of tensorstore's writes that end after a failed one.

    Ctrl-C that comes in a callback, such as JAX's of the garbage collector, comes again a moment later.
    """
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
    elif str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _set_up_logging() -> None:
    """Makes a normal run show the project's own lines only."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fqgan_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.WARNING)
    # If a checkpoint cannot be written, orbax raises one error, and prints it and those of all its other writes too.
    absl_logging.get_absl_logger().addFilter(_is_not_raised_too)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine 'async_serialize")
    sys.unraisablehook = _report_unraisable
    warnings.filterwarnings("ignore", module="orbax")
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in images that are read all the same


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Returns:
      0 on success; 2 after bad input, which is explained in one sentence; 3 if training diverged; 130 after Ctrl-C, 141
      after a closed pipe.
    """
    options = _parse(arguments)
    _set_up_logging()
    many = False
    try:
        many = options.many_processes and _start_processes(options)
        load_plugins(options.plugin)
        _check_outputs(options)
        options.run(options)
        sys.stdout.flush()  # a closed pipe shows here
    except KeyboardInterrupt:
        print(f"fqgan {options.command}: stopped.", file=sys.stderr)
        return _leave(INTERRUPTED) if many else INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what is left
        return _leave(CLOSED_PIPE) if many else CLOSED_PIPE
    except Exception as error:
        sentence, code = _sentence(error), getattr(error, "code", 2)
        if sentence:
            print(f"fqgan {options.command}: {sentence}", file=sys.stderr)
            return _leave(code) if many else code
        if not many:
            raise
        traceback.print_exc()
        return _leave(1)
    return 0


def _sentence(error: Exception) -> str:
    """Returns what an error that a person can mend says to them; "" for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and (full := is_full_disk(error)):
        where = f" ({error.filename})" if error.filename else ""
        return f"{full}{where}: free some space and try again."
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
        return f"There is not enough memory ({str(error).splitlines()[0][:200]}): make the batch or the images smaller."
    return ""


def _check_outputs(options: argparse.Namespace) -> None:
    """Raises `UserError` if a file or a folder that the command is to write cannot be written; before any work."""
    for name in OUTPUTS:
        value = getattr(options, name, None)
        if not isinstance(value, PurePath):
            continue
        path = as_path(value)
        check_writable(path)
        is_file = path.suffix in (".json", ".png", ".npz", ".html")
        check(not (is_file and path.is_dir()), f"{path} is a folder, but a file is to be written: choose another name.")


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
