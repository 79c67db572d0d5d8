"""Plot of a sweep over sampling options: distance against a score of quality."""

from collections.abc import Sequence
from pathlib import Path

from fqgan_jax.evaluation.metrics import how_to_read
from fqgan_jax.evaluation.sweep import Point
from fqgan_jax.pictures.figures import new_figure, save_figure

DISTANCES = ("gfid", "fd_lite0")
SCORES = ("inception_score", "lite0_score")


def save_sweep_plot(points: Sequence[Point], path: Path) -> bool:
    """Plots distance against score, a line for each combination of the options after the first.

    Returns:
      Whether there was a distance and a score to plot.
    """
    found = [name for names in (DISTANCES, SCORES) for name in names if name in points[0].results]
    distance, score = (next((n for n in found if n in names), None) for names in (DISTANCES, SCORES))
    if distance is None or score is None:
        return False
    first, *others = points[0].options
    figure, axes = new_figure(6.5, 4.5)
    lines: dict[str, list[Point]] = {}
    for point in points:
        lines.setdefault(", ".join(f"{name} {point.options[name]:g}" for name in others), []).append(point)
    for label, line in lines.items():
        xs, ys = ([point.results[name] for point in line] for name in (score, distance))
        axes.plot(xs, ys, marker="o", label=label)
        for point, x, y in zip(line, xs, ys, strict=True):
            axes.annotate(f"{point.options[first]:g}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel=f"{score} ({how_to_read(score)})", ylabel=f"{distance} ({how_to_read(distance)})")
    axes.set_title(f"labels: {first}")
    if others:
        axes.legend(fontsize=8)
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    save_figure(figure, path)
    return True
