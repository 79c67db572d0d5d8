"""Histogram of oriented gradients: a teacher that needs no weights (Dalal & Triggs 2005)."""

import numpy as np
from jaxtyping import Float, UInt8

CELLS = 4
ORIENTATIONS = 6
WIDTH = CELLS * CELLS * ORIENTATIONS


def hog_features(image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, " {WIDTH}"]:
    """Orientation histograms of a 4x4 grid of cells, each normalized, mean removed; float32."""
    from skimage.feature import hog

    cell = (image.shape[0] // CELLS, image.shape[1] // CELLS)
    square = image[: cell[0] * CELLS, : cell[1] * CELLS]
    features = hog(square, ORIENTATIONS, cell, cells_per_block=(1, 1), block_norm="L2", channel_axis=-1)
    return (features - features.mean()).astype(np.float32)
