"""Plots of the logged metrics of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fqgan_jax.pictures.figures import new_panels, save_figure

Points = list[tuple[int, float]]  # (step, value)

USUAL = ("reconstruction", "loss", "next_code/0", "validation/psnr", "validation/ssim", "perplexity/0")


def points(log: Sequence[dict], name: str) -> Points:
    """Returns what a run logged under a name."""
    return [(line["step"], line[name]) for line in log if name in line]


def save_curves(panels: Mapping[str, Mapping[str, Points]], path: Path) -> None:
    """Plots values over steps: a panel for each title, in it a curve for each label; empty curves are left out."""
    figure, plots = new_panels(len(panels), columns=3, width=4.2, height=3)
    for axes, (title, curves) in zip(plots, panels.items(), strict=True):
        for label, curve in curves.items():
            if curve:
                axes.plot(*zip(*curve, strict=True), label=label)
        axes.set(title=title, xlabel="step")
        if len(axes.lines) > 1:
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def save_overlaid_curves(runs: Mapping[str, Sequence[dict]], path: Path) -> None:
    """Plots the usual metrics of several runs: a panel for each metric that any of them logged."""
    panels = {name: {run: points(log, name) for run, log in runs.items()} for name in USUAL}
    save_curves({name: curves for name, curves in panels.items() if any(curves.values())}, path)
