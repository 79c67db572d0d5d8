"""`fqgan runs`."""

from fqgan_jax.cli.tables import print_table
from fqgan_jax.errors import check
from fqgan_jax.storage import as_path

HELP = "List the runs in a folder: how far they are, how fast, and what they measured last."
EXAMPLES = """\
  fqgan runs runs
  fqgan runs gs://BUCKET/runs --metrics psnr,rfid"""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan runs`."""
    parser.add_argument("folder", type=as_path, help="folder of work folders, at any depth, or one work folder")
    parser.add_argument(
        "--metrics",
        metavar="NAME[,NAME...]",
        help="validation metrics to show, as metrics.jsonl names them (default: those that are no part of another)",
    )


def run(options) -> None:
    """Prints a line for each run."""
    from fqgan_jax.training.summary import find_runs

    check(options.folder.is_dir(), f"There is no folder {options.folder}.")
    runs = list(find_runs(options.folder))
    check(runs, f"{options.folder} holds no work folder of fqgan train.")
    names = options.metrics.split(",") if options.metrics else _known(runs)
    rows = [("run", "task", "step", "state", "images/s", *names)]
    for each in runs:
        rate = "" if each.images_per_second is None else f"{each.images_per_second:.4g}"
        values = (f"{each.metrics[name]:.5g}" if name in each.metrics else "" for name in names)
        rows.append((str(each.workdir), each.task, f"{each.step}/{each.num_steps}", each.state, rate, *values))
    print_table(rows)


def _known(runs) -> list[str]:
    """The metrics of any run, without those of single sub-codebooks."""
    return list(dict.fromkeys(name for each in runs for name in each.metrics if "/" not in name))
