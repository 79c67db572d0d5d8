"""Several training runs that differ in a few fields, side by side in one table and one plot."""

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from fqgan_jax.checkpoints import FOLDER, saved_steps
from fqgan_jax.config import load_config
from fqgan_jax.errors import check
from fqgan_jax.files import write_atomically
from fqgan_jax.pictures.figures import save_figure
from fqgan_jax.training.ablation_columns import BITS, TITLES, columns, sizes, speed, titled
from fqgan_jax.training.ablation_measures import is_measured, measured
from fqgan_jax.training.logging import read_log
from fqgan_jax.training.loop import train
from fqgan_jax.training.workdir import check_workdir

QUALITY = ("PSNR (dB)", "SSIM", "rFID", "fd_lite0")  # columns that the plot shows
Columns = Mapping[str, Sequence[float]]  # by name, a value per seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationRun:
    """One training run.

    Attributes:
      variant: name of the variant; its runs differ in their seeds only.
      config: config of the run.
      workdir: `VARIANT/seed_S` in the ablation's folder.
      probe: whether linear probes are trained on its codes.
    """

    variant: str
    config: ConfigDict
    workdir: Path
    probe: bool = False

    @property
    def images(self) -> int:
        """Number of images that the run trains on."""
        return self.config.train.steps * self.config.data.batch_size


def run_ablation(config: ConfigDict, workdir: Path, *, source: str | None = None, only_run: int | None = None) -> str:
    """Trains every variant with every seed, unless it is finished, and compares them.

    Args:
      config: `runs` (a variant's name to a config file and overrides), `seeds` and maybe `probe`, as in
        `configs/ablation_*.py`.
      workdir: folder for the runs' work folders, and for `table.csv`, `table.md`, `plot.png` and `curves.png` of the
        finished runs.
      source: images for all runs, instead of those in the configs.
      only_run: number of the only run to train, from 0: variants in their order, seed after seed.

    Returns:
      The table as Markdown.

    Raises:
      UserError: a config that cannot be trained, budgets that differ, a work folder of another run, no such run.
    """
    runs = plan_runs(config, workdir, source)
    known = only_run is None or 0 <= only_run < len(runs)
    check(known, f"There is no run {only_run}: the ablation has runs 0 to {len(runs) - 1}.")
    for run in tqdm(runs if only_run is None else [runs[only_run]], desc="runs"):
        if not is_finished(run):
            train(run.config, run.workdir)
        measured(run.workdir, run.config, probe=run.probe)
        table = write_results(runs, workdir)
    return table


def plan_runs(config: ConfigDict, workdir: Path, source: str | None = None) -> list[AblationRun]:
    """Returns all runs of an ablation with their configs, whose budgets are equal.

    Raises:
      UserError: no runs, a config that does not load, or budgets that differ.
    """
    check(bool(config.runs) and bool(config.seeds), "An ablation needs at least one run and one seed.")
    shared_overrides = [f"--config.data.source={source}"] if source else []
    runs = [
        AblationRun(
            variant=variant,
            config=load_config(file, [*overrides, *shared_overrides, f"--config.seed={seed}"]),
            workdir=workdir / variant.replace("/", "_") / f"seed_{seed}",
            probe=config.get("probe", False),
        )
        for variant, (file, *overrides) in config.runs.items()
        for seed in config.seeds
    ]
    budgets = {run.variant: run.images for run in runs}
    check(
        len(set(budgets.values())) == 1,
        f"The runs train on different numbers of images ({budgets}): give all equal train.steps and data.batch_size.",
    )
    return runs


def is_finished(run: AblationRun) -> bool:
    """Returns whether a run's last checkpoint is saved.

    Raises:
      UserError: its work folder holds a run with another config.
    """
    if run.config.train.steps not in saved_steps(run.workdir / FOLDER):
        return False
    check_workdir(run.config, run.workdir)
    return True


def write_results(runs: Sequence[AblationRun], workdir: Path) -> str:
    """Writes the table and the plot of all variants with a run that is measured; returns the table as Markdown.

    What other processes train or measure at this time is left to them.
    """
    variants: dict[str, list[AblationRun]] = {}
    for run in (run for run in runs if is_measured(run.workdir) and is_finished(run)):
        variants.setdefault(run.variant, []).append(run)
    rows: dict[str, Columns] = {}
    for variant, of_seeds in variants.items():
        rows[variant] = _columns(of_seeds)
        rows |= {f"{variant}, first {k}": columns for k, columns in _prefix_columns(of_seeds).items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [[variant, *(_cell(row.get(name, ())) for name in names)] for variant, row in rows.items()]
    header = ["run", *names]

    text = io.StringIO()
    csv.writer(text).writerows([header, *cells])
    write_atomically(workdir / "table.csv", text.getvalue())
    table = "".join(f"| {' | '.join(line)} |\n" for line in [header, ["---"] * len(header), *cells])
    write_atomically(workdir / "table.md", table)
    if all(BITS in row and any(name in row for name in QUALITY) for row in rows.values()):
        save_plot(rows, workdir / "plot.png")
    save_curves(variants, workdir / "curves.png")
    return table


def _columns(of_seeds: Sequence[AblationRun]) -> dict[str, list[float]]:
    """The columns of a variant, each with a value per seed."""
    found: dict[str, list[float]] = {}
    for run in of_seeds:
        log = read_log(run.workdir)
        own = columns[run.config.task](log, measured(run.workdir, run.config, probe=run.probe))
        for name, value in (sizes(run.workdir) | own | speed(run.config, log)).items():
            found.setdefault(name, []).append(value)
    return found


def _prefix_columns(of_seeds: Sequence[AblationRun]) -> dict[str, dict[str, list[float]]]:
    """The columns of the first k sub-codebooks of a nested variant, by k; none of the others."""
    rows: dict[str, dict[str, list[float]]] = {}
    for run in of_seeds:
        for k, numbers in measured(run.workdir, run.config, probe=run.probe).get("first", {}).items():
            if int(k) < run.config.model.num_codebooks:
                N = run.config.model.codebook_size
                prefix = {"K": int(k), "N": N, BITS: int(k) * math.log2(N)} | titled(numbers)
                for name, value in prefix.items():
                    rows.setdefault(k, {}).setdefault(name, []).append(value)
    return rows


def _cell(values: Sequence[float]) -> str:
    """Mean ± deviation over seeds; sizes, which are the same for all seeds, without deviation."""
    if not values:
        return ""
    if len(set(values)) == 1:
        return f"{values[0]:.4g}"
    digits = max(0, 3 - math.floor(math.log10(abs(statistics.mean(values)) + 1e-12)))
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def save_plot(rows: Mapping[str, Columns], path: Path) -> None:
    """Plots quality against bits per position, with the deviation over seeds.

    Variants named "GROUP: RUN" share a colour.
    """
    from matplotlib.figure import Figure

    shown = [name for name in QUALITY if all(name in row for row in rows.values())]
    figure = Figure(figsize=(5.5 * len(shown), 4.2), layout="constrained")
    groups: dict[str, dict[str, Columns]] = {}
    for variant, row in rows.items():
        group, _, label = variant.rpartition(": ")
        groups.setdefault(group, {})[label] = row
    for index, name in enumerate(shown, 1):
        axes = figure.add_subplot(1, len(shown), index)
        for number, (group, members) in enumerate(groups.items()):
            _plot_group(axes, members, name=name, color=f"C{number}", group=group)
        axes.set(xlabel=BITS, ylabel=name)
        axes.margins(x=0.2)
        axes.grid(alpha=0.3)
        if any(groups):
            axes.legend(fontsize=8)
    save_figure(figure, path)


def save_curves(variants: Mapping[str, Sequence[AblationRun]], path: Path) -> None:
    """Plots the headline of every evaluation against steps, the mean over seeds with its deviation.

    That is the held-out loss of generators and the PSNR of tokenizers.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for variant, runs in variants.items():
        headline = {"generator": "next_code", "tokenizer": "psnr"}[runs[0].config.task]
        values: dict[int, list[float]] = {}
        for line in (line for run in runs for line in read_log(run.workdir) if f"validation/{headline}" in line):
            values.setdefault(line["step"], []).append(line[f"validation/{headline}"])
        deviations = [float(np.std(each, ddof=1)) if len(each) > 1 else 0.0 for each in values.values()]
        means = [np.mean(each) for each in values.values()]
        axes.errorbar(list(values), means, deviations, fmt="o-", markersize=3, capsize=3, label=variant)
        axes.set_ylabel(TITLES[headline])
    axes.set_xlabel("steps")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def _plot_group(axes, members: Mapping[str, Columns], *, name: str, color: str, group: str) -> None:
    """Points of the variants of a group, with their labels."""
    bits = [row[BITS][0] for row in members.values()]
    means = [np.mean(row[name]) for row in members.values()]
    deviations = [np.std(row[name], ddof=1) if len(row[name]) > 1 else 0 for row in members.values()]
    axes.errorbar(bits, means, deviations, fmt="o", capsize=3, color=color, label=group or None)
    for label, x, y in zip(members, bits, means, strict=True):
        axes.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
