"""Teachers by the names that configs use."""

import dataclasses
from collections.abc import Callable

import numpy as np

from fqgan_jax.teachers import hog


@dataclasses.dataclass(frozen=True)
class HostTeacher:
    """A teacher that runs in the data pipeline: `features(image uint8 [H, W, 3])` gives `width` numbers."""

    width: int
    features: Callable[[np.ndarray], np.ndarray]


HOST_TEACHERS = {"hog": HostTeacher(hog.WIDTH, hog.hog_features)}
