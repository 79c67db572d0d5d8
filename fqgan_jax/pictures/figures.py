"""Pictures of images and of curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fqgan_jax.data.pixels import to_uint8


def image_rows(
    rows: Sequence[Float[np.ndarray, "n H W 3"] | UInt8[np.ndarray, "n H W 3"]], gap: int = 2
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Images, uint8 or in [-1, 1], in rows on white, `gap` pixels apart."""
    rows = [row if row.dtype == np.uint8 else to_uint8(row) for row in rows]
    padded = [np.pad(row, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255) for row in rows]
    widest = max(len(row) for row in padded)
    full = [np.pad(row, ((0, widest - len(row)), (0, 0), (0, 0), (0, 0)), constant_values=255) for row in padded]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in full])[:-gap, :-gap]


def save_picture(picture: UInt8[np.ndarray, "H W 3"], path: Path, smallest: int = 512) -> None:
    """Writes a picture whole or not at all, small ones enlarged by a whole factor so that people can see them."""
    image, partial = Image.fromarray(picture), path.with_name(f".{path.stem}.partial{path.suffix}")
    factor = max(1, -(-smallest // max(image.size)))
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(partial)
    partial.replace(path)


Points = list[tuple[int, float]]


def points(log: Sequence[dict], name: str) -> Points:
    """(step, value) of what a run logged under a name."""
    return [(line["step"], line[name]) for line in log if name in line]


def save_curves(panels: dict[str, dict[str, Points]], path: Path) -> None:
    """Plots values over steps: one panel per title, in it a curve per label; empty curves are left out."""
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3 * rows), layout="constrained")
    for place, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        for label, curve in curves.items():
            if curve:
                axes.plot(*zip(*curve, strict=True), label=label)
        axes.set(title=title, xlabel="step")
        if len(axes.lines) > 1:
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def save_labelled_rows(rows: dict[str, Float[np.ndarray, "n H W 3"]], path: Path) -> None:
    """Writes rows of images in [-1, 1], each with its name in front."""
    from matplotlib.figure import Figure

    picture = image_rows(list(rows.values()))
    inches = 9 / picture.shape[1]
    figure = Figure(figsize=(10, picture.shape[0] * inches + 0.2), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(picture, interpolation="nearest")
    step = picture.shape[0] / len(rows)
    axes.set_yticks([(i + 0.5) * step for i in range(len(rows))], list(rows))
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, dpi=110, bbox_inches="tight")
