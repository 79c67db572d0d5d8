"""Picture of a generator's held-out losses: where in the image and in which classes codes are hard to predict."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from fqgan_jax.evaluation.held_out import HeldOut
from fqgan_jax.pictures.figures import DOTS_PER_INCH, new_panels

SHOWN_CODEBOOKS = 8
SHOWN_CLASSES = 12


def held_out_picture(held_out: HeldOut, class_names: Sequence[str]) -> UInt8[np.ndarray, "H W 3"]:
    """Draws the loss at each position of each of the first sub-codebooks, and the classes with the highest loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    losses = held_out.by_codebook[:SHOWN_CODEBOOKS]
    figure, plots = new_panels(len(losses) + 1, columns=3, width=4.2, height=3.6)
    maps, bars = plots[:-1], plots[-1]
    for k, (axes, loss) in enumerate(zip(maps, losses, strict=True)):
        shown = axes.imshow(held_out.by_position[..., k], cmap="viridis")
        axes.set(title=f"sub-codebook {k}: {loss:.2f} nats", xticks=[], yticks=[])
        figure.colorbar(shown, ax=axes, shrink=0.8)
    of_classes = np.where(held_out.images > 0, held_out.by_class.mean(axis=1), -np.inf)
    hardest = np.argsort(-of_classes, kind="stable")[: min(SHOWN_CLASSES, int((held_out.images > 0).sum()))]
    names = [class_names[label] if class_names else f"class {label}" for label in hardest]
    bars.barh(range(len(hardest)), of_classes[hardest])
    bars.set_yticks(range(len(hardest)), names, fontsize=8)
    bars.invert_yaxis()
    bars.set(title="classes with the highest loss", xlabel="nats a code")
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
