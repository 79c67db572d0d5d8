"""Plot of quality against bits."""

from collections.abc import Sequence
from pathlib import Path

from fqgan_jax.evaluation.metrics import how_to_read
from fqgan_jax.evaluation.prefixes import Prefix, headline
from fqgan_jax.pictures.figures import new_panels, save_figure


def save_quality_against_bits(prefixes: Sequence[Prefix], path: Path) -> None:
    """Plots each number over the bits of a position, a panel for each; points are labelled with k."""
    names = list(headline(prefixes[0]))
    figure, plots = new_panels(len(names), columns=3, width=4.2, height=3)
    bits = [prefix.bits for prefix in prefixes]
    for axes, name in zip(plots, names, strict=True):
        values = [headline(prefix)[name] for prefix in prefixes]
        axes.plot(bits, values, marker="o")
        for prefix, value in zip(prefixes, values, strict=True):
            label = f"k={prefix.codebooks}"
            axes.annotate(label, (prefix.bits, value), textcoords="offset points", xytext=(4, 4), fontsize=8)
        reading = how_to_read(name)
        axes.set(title=f"{name} ({reading})" if reading else name, xlabel="bits a position")
        axes.margins(x=0.15, y=0.15)
        axes.grid(alpha=0.3)
    save_figure(figure, path)
