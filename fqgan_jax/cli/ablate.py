"""`fqgan ablate`."""

from pathlib import Path

from fqgan_jax.cli.arguments import add_config

HELP = "Train several variants of a tokenizer with equal budgets and compare them in one table."
EXAMPLES = """\
  fqgan ablate --config configs/ablation_codebooks.py --workdir runs/ablation
  fqgan ablate --config configs/ablation_codebooks.py:k=1-2-4-8 --workdir runs/ablation --config.seeds="(0,1,2)\""""


def add_arguments(parser) -> None:
    add_config(parser)
    parser.add_argument("--workdir", required=True, type=Path, help="takes a work folder for each run, and the table")


def run(options) -> None:
    from fqgan_jax.ablation import run_ablation
    from fqgan_jax.config import load_config

    print(run_ablation(load_config(options.config, options.overrides), options.workdir), end="")
