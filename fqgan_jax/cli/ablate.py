"""`fqgan ablate`."""

from fqgan_jax.cli.arguments import add_config
from fqgan_jax.storage import as_path

OVERRIDES = True
HELP = "Train several variants of a tokenizer with equal budgets and compare them in one table and one plot."
EXAMPLES = """\
  fqgan ablate --config configs/ablation_codebooks.py --workdir runs/ablation
  fqgan ablate --config configs/ablation_codebooks.py:k=1-2-4-8,n=64-256 --workdir runs/grid --config.seeds="(0,1,2)"
  fqgan ablate --config configs/ablation_tiny_imagenet.py --data FOLDER --workdir runs/tiny --only-run 7
several processes share the runs: each takes others with --only-run; without it, finished ones are only compared."""


def add_arguments(parser) -> None:
    """Adds the flags of `fqgan ablate`."""
    add_config(parser)
    parser.add_argument("--workdir", required=True, type=as_path, help="folder for the runs and their table")
    parser.add_argument("--data", help="images for all runs, instead of those in their configs")
    parser.add_argument(
        "--only-run", type=int, metavar="I", help="train run I alone (from 0, seed after seed), as array jobs do"
    )


def run(options) -> None:
    """Runs `fqgan ablate`."""
    from fqgan_jax.config import load_config
    from fqgan_jax.training.ablation import run_ablation

    config = load_config(options.config, options.overrides)
    print(run_ablation(config, options.workdir, source=options.data, only_run=options.only_run), end="")
