"""Pictures and reports of models. Matplotlib is imported when a plot is drawn."""

from fqgan_jax.pictures.curves import points, save_curves, save_overlaid_curves
from fqgan_jax.pictures.figures import image_rows, save_labelled_rows, save_picture

__all__ = [
    "image_rows",
    "points",
    "save_curves",
    "save_labelled_rows",
    "save_overlaid_curves",
    "save_picture",
]
