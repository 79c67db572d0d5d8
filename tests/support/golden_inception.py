"""The FID Inception network drawn by the golden recipe (tests/golden/README.md), by its published names."""

import numpy as np

from support import golden_data


def state() -> dict[str, np.ndarray]:
    """Published tensors; convolutions are scaled by 1.6 so that activations keep their size."""
    tensors = golden_data.state_dict("inception")
    return {name: tensor * np.float32(1.6 if tensor.ndim == 4 else 1) for name, tensor in tensors.items()}
