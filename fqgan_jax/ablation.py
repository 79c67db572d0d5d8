"""Several training runs that differ in a few fields, side by side in one table."""

import csv
import io
import math
import statistics
from pathlib import Path

from jax import tree
from tqdm import tqdm

from fqgan_jax import api
from fqgan_jax.build import check
from fqgan_jax.config import load_config
from fqgan_jax.files import write_atomically
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.loop import train

METRICS = ("psnr", "ssim", "usage", "perplexity")


def run_ablation(config, workdir: Path) -> str:
    """Trains every run of the config with every seed, where that is not done yet; returns the table as Markdown.

    Args:
      config: `runs` (name to a config file and overrides) and `seeds`, as in `configs/ablation_codebooks.py`.
      workdir: takes a work folder `NAME/seed_S` of each run, and `table.csv` and `table.md`.

    Raises:
      UserError: a config that cannot be trained, or a work folder of another run.
    """
    check(bool(config.runs) and bool(config.seeds), "An ablation needs at least one run and one seed.")
    table = []
    for name, arguments in tqdm(config.runs.items(), desc="runs"):
        folders = []
        for seed in config.seeds:
            folder = workdir / name / f"seed_{seed}"
            train(load_config(arguments[0], [*arguments[1:], f"--config.seed={seed}"]), folder)
            folders.append(folder)
        table.append({"run": name} | _row(folders))
        _write_table(table, workdir)
    return (workdir / "table.md").read_text()


def _row(folders: list[Path]) -> dict[str, str]:
    """Sizes, and mean ± deviation over seeds of the last held-out metrics (usage and perplexity: of the worst code)."""
    tokenizer = api.load_tokenizer(folders[0])
    module, parameters = tokenizer.module, sum(leaf.size for leaf in tree.leaves(tokenizer.params))
    row = {"K": f"{module.num_codebooks}", "N": f"{module.codebook_size}"}
    row["bits per position"] = f"{module.num_codebooks * math.log2(module.codebook_size):g}"
    row["parameters (millions)"] = f"{parameters / 1e6:.2f}"
    lasts = [_last_evaluation(folder) for folder in folders]
    for metric in METRICS:
        values = [
            min(v for name, v in last.items() if name.partition("/")[2].partition("/")[0] == metric) for last in lasts
        ]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        row[metric] = f"{statistics.mean(values):.3f}{spread}"
    return row


def _last_evaluation(folder: Path) -> dict[str, float]:
    return next(line for line in reversed(read_log(folder)) if "validation/psnr" in line)


def _write_table(table: list[dict[str, str]], workdir: Path) -> None:
    columns = list(table[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(table)
    write_atomically(workdir / "table.csv", text.getvalue())
    rows = [columns, ["---"] * len(columns), *(list(row.values()) for row in table)]
    write_atomically(workdir / "table.md", "".join(f"| {' | '.join(row)} |\n" for row in rows))
