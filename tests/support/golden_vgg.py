"""VGG16 and LPIPS heads drawn by the golden recipe (tests/golden/README.md), by their published names."""

import numpy as np

from support import golden_data

CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
CONVOLUTIONS |= {17: (256, 512)} | dict.fromkeys((19, 21, 24, 26, 28), (512, 512))


def features() -> dict[str, np.ndarray]:
    """VGG16's convolutions."""
    state = {}
    for index, (width_in, width) in CONVOLUTIONS.items():
        state[f"features.{index}.weight"] = golden_data.weight(f"features.{index}.weight", (width, width_in, 3, 3))
        state[f"features.{index}.bias"] = golden_data.weight(f"features.{index}.bias", (width,))
    return state


def heads() -> dict[str, np.ndarray]:
    """The five non-negative heads."""
    names = {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate((64, 128, 256, 512, 512))}
    return {name: np.abs(golden_data.weight(name, shape)) for name, shape in names.items()}
