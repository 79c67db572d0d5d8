"""Several training runs that differ in a few fields, side by side in one table and one plot."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax import tree
from tqdm import tqdm

from fqgan_jax import api
from fqgan_jax.checkpoints import FOLDER
from fqgan_jax.config import load_config
from fqgan_jax.errors import check
from fqgan_jax.files import write_atomically
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.loop import train
from fqgan_jax.training.workdir import check_workdir


class Run(NamedTuple):
    """One training run: its variant's name, its config, and its work folder `VARIANT/seed_S`."""

    variant: str
    config: object
    workdir: Path


def run_ablation(config, workdir: Path, source: str | None = None, only_run: int | None = None) -> str:
    """Trains every variant with every seed, where that is not done yet; returns the table as Markdown.

    Args:
      config: `runs` (a variant's name to a config file and overrides) and `seeds`, as in `configs/ablation_*.py`.
      workdir: takes the runs' work folders, and `table.csv`, `table.md` and `plot.png` of what is finished.
      source: images for all of them, instead of those in the configs.
      only_run: number of the only run to train, from 0: variants in their order, seed after seed.

    Raises:
      UserError: a config that cannot be trained, budgets that differ, a work folder of another run, no such run.
    """
    runs = plan_runs(config, workdir, source)
    known = only_run is None or 0 <= only_run < len(runs)
    check(known, f"There is no run {only_run}: the ablation has runs 0 to {len(runs) - 1}.")
    for run in tqdm(runs if only_run is None else [runs[only_run]], desc="runs"):
        if not finished(run):
            train(run.config, run.workdir)
        table = write_results(runs, workdir)
    return table


def plan_runs(config, workdir: Path, source: str | None = None) -> list[Run]:
    """All runs of an ablation, every config loaded and checked for equal budgets."""
    check(bool(config.runs) and bool(config.seeds), "An ablation needs at least one run and one seed.")
    everywhere = [f"--config.data.source={source}"] if source else []
    runs = []
    for variant, (file, *overrides) in config.runs.items():
        for seed in config.seeds:
            loaded = load_config(file, [*overrides, *everywhere, f"--config.seed={seed}"])
            runs.append(Run(variant, loaded, workdir / variant.replace("/", "_") / f"seed_{seed}"))
    budgets = {run.variant: run.config.train.steps * run.config.data.batch_size for run in runs}
    check(
        len(set(budgets.values())) == 1,
        f"The runs see different numbers of images ({budgets}): give all the same train.steps and data.batch_size.",
    )
    return runs


def finished(run: Run) -> bool:
    """Whether a run's last checkpoint is there.

    Raises:
      UserError: its work folder holds a run with another config.
    """
    if not (run.workdir / FOLDER / str(run.config.train.steps)).is_dir():
        return False
    check_workdir(run.config, run.workdir)
    return True


def write_results(runs: Sequence[Run], workdir: Path) -> str:
    """Writes the table and the plot of all variants with a finished run; returns the table as Markdown."""
    variants: dict[str, list[Run]] = {}
    for run in filter(finished, runs):
        variants.setdefault(run.variant, []).append(run)
    rows = {variant: _measures(seeds) for variant, seeds in variants.items()}
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [
        {"run": variant} | {name: _text(row[name]) if name in row else "" for name in columns}
        for variant, row in rows.items()
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["run", *columns])
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(workdir / "table.csv", text.getvalue())
    cells = [["run", *columns], ["---"] * (len(columns) + 1), *(list(line.values()) for line in lines)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in cells)
    write_atomically(workdir / "table.md", table)
    save_plot(rows, workdir / "plot.png")
    return table


def _measures(seeds: Sequence[Run]) -> dict[str, list[float]]:
    """A variant's columns, each with a value per seed."""
    columns: dict[str, list[float]] = {}
    for run in seeds:
        for name, value in (_sizes(run.workdir) | _last_measures(run)).items():
            columns.setdefault(name, []).append(value)
    return columns


@cache  # a finished run's sizes stay
def _sizes(workdir: Path) -> dict[str, float]:
    tokenizer = api.load_tokenizer(workdir)
    K, N = tokenizer.module.num_codebooks, tokenizer.module.codebook_size
    parameters = sum(leaf.size for leaf in tree.leaves(tokenizer.params))
    return {"K": K, "N": N, "bits per position": K * math.log2(N), "parameters (millions)": parameters / 1e6}


def _last_measures(run: Run) -> dict[str, float]:
    """Of the last held-out evaluation: usage of the worst sub-codebook, mutual information as a mean over pairs."""
    log = read_log(run.workdir)
    last = next(line for line in reversed(log) if "validation/psnr" in line)
    several = lambda name: [value for key, value in last.items() if key.startswith(f"validation/{name}/")]
    measures = {"PSNR (dB)": last["validation/psnr"], "SSIM": last["validation/ssim"]}
    measures |= {"rFID": last["validation/rfid"]} if "validation/rfid" in last else {}
    measures |= {"usage": min(several("usage")), "perplexity": min(several("perplexity"))}
    shared = several("mutual_information")
    measures |= {"mutual information (nats)": statistics.mean(shared)} if shared else {}
    # Of the training steps alone, at their median speed.
    rate = statistics.median(line["images_per_second_per_chip"] for line in log if "images_per_second_per_chip" in line)
    seconds = run.config.train.steps * run.config.data.batch_size / rate
    return measures | {"images/s per chip": rate, "chip-hours": seconds / 3600}


def _text(values: Sequence[float]) -> str:
    """Mean ± deviation over seeds; sizes, which are the same for all, without one."""
    if len(set(values)) == 1:
        return f"{values[0]:.4g}"
    digits = max(0, 3 - math.floor(math.log10(abs(statistics.mean(values)) + 1e-12)))
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def save_plot(rows: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Quality against bits per position, with the deviation over seeds; variants named "GROUP: RUN" share a colour."""
    from matplotlib.figure import Figure

    names = [name for name in ("PSNR (dB)", "SSIM", "rFID") if all(name in row for row in rows.values())]
    figure = Figure(figsize=(5.5 * len(names), 4.2), layout="constrained")
    groups = list(dict.fromkeys(variant.rpartition(": ")[0] for variant in rows))
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        for number, group in enumerate(groups):
            members = {variant: row for variant, row in rows.items() if variant.rpartition(": ")[0] == group}
            bits = [row["bits per position"][0] for row in members.values()]
            spread = [np.std(row[name], ddof=1) if len(row[name]) > 1 else 0 for row in members.values()]
            means = [np.mean(row[name]) for row in members.values()]
            axes.errorbar(bits, means, spread, fmt="o", capsize=3, color=f"C{number}", label=group or None)
            for variant, x, y in zip(members, bits, means, strict=True):
                label = variant.rpartition(": ")[2]
                axes.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
        axes.set(xlabel="bits per position", ylabel=name)
        axes.margins(x=0.2)
        axes.grid(alpha=0.3)
        if any(groups):
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
