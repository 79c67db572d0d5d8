"""A picture with a row of samples per class, collected while the samples are drawn."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from fqgan_jax.pictures.figures import image_rows, save_picture


class SampleGrid:
    """Keeps the first samples of the first classes; the others are ignored.

    Args:
      labels: the class of every sample that will be drawn, in order.
      num_rows: classes that are shown.
      num_columns: samples of each that are shown.
    """

    def __init__(self, labels: Int[np.ndarray, " n"], *, num_rows: int = 10, num_columns: int = 8):
        in_order = list(dict.fromkeys(labels.tolist()))
        self._num_columns = num_columns
        self._rows: dict[int, list[np.ndarray]] = {label: [] for label in in_order[:num_rows]}

    def add(self, images: UInt8[np.ndarray, "n H W 3"], labels: Int[np.ndarray, " n"]) -> None:
        """Adds the next samples."""
        for image, label in zip(images, labels.tolist(), strict=True):
            row = self._rows.get(label)
            if row is not None and len(row) < self._num_columns:
                row.append(image)

    def save(self, path: Path) -> None:
        """Writes the picture."""
        save_picture(image_rows([np.stack(row) for row in self._rows.values()]), path)
