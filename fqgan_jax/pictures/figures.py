"""Pictures of images, and their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fqgan_jax.data.pixels import to_uint8
from fqgan_jax.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 110


def image_rows(
    rows: Sequence[Float[np.ndarray, "n H W 3"] | UInt8[np.ndarray, "n H W 3"]], *, gap: int = 2
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Arranges images, uint8 or in [-1, 1], in rows on white, `gap` pixels apart."""
    rows = [row if row.dtype == np.uint8 else to_uint8(row) for row in rows]
    padded = [np.pad(row, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255) for row in rows]
    widest = max(len(row) for row in padded)
    full = [np.pad(row, ((0, widest - len(row)), (0, 0), (0, 0), (0, 0)), constant_values=255) for row in padded]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in full])[:-gap, :-gap]


def save_picture(picture: UInt8[np.ndarray, "H W 3"], path: Path, *, smallest: int = 512) -> None:
    """Writes a picture as a whole file; one with no side of `smallest` pixels is enlarged by a whole factor."""
    image = Image.fromarray(picture)
    factor = max(1, -(-smallest // max(image.size)))
    larger = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    with whole_file(path) as partial:
        larger.save(partial, Image.registered_extensions()[path.suffix.lower()])


def save_labelled_rows(rows: Mapping[str, Float[np.ndarray, "n H W 3"]], path: Path) -> None:
    """Writes rows of images in [-1, 1], each with its name in front."""
    picture = image_rows(list(rows.values()))
    height, width = picture.shape[:2]
    figure, axes = new_figure(10, 9 * height / width + 0.2)
    axes.imshow(picture, interpolation="nearest")
    row_height = height / len(rows)
    axes.set_yticks([(i + 0.5) * row_height for i in range(len(rows))], list(rows))
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    save_figure(figure, path, tight=True)


def save_figure(figure: "Figure", path: Path, *, tight: bool = False) -> None:
    """Writes a figure as a whole file; `tight` cuts its margins."""
    with whole_file(path) as partial:
        kind = path.suffix.removeprefix(".") or "png"
        figure.savefig(partial, format=kind, dpi=DOTS_PER_INCH, bbox_inches="tight" if tight else None)


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """Returns a figure of a size in inches, with one plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def new_panels(count: int, *, columns: int, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    """Returns a figure with several plots, at most `columns` side by side, each of a size in inches."""
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
